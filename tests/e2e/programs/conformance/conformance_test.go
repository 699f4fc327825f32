// Package conformance runs the conformance tests of the Network Policy API as upstream's conformance_profile_test.go does, but with
// time-outs for a busy machine, which upstream leaves open and has no flags for: one of them bounds a whole test that waits for six
// denied connections in turn. How long a connection may take is as upstream has it.
package conformance

import (
	"os"
	"testing"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/yaml"

	"sigs.k8s.io/network-policy-api/conformance/tests"
	timeouts "sigs.k8s.io/network-policy-api/conformance/utils/config"
	"sigs.k8s.io/network-policy-api/conformance/utils/flags"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

func TestConformance(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cluster, err := config.GetConfig()
	must(err)
	objects, err := client.New(cluster, client.Options{})
	must(err)
	clients, err := kubernetes.NewForConfig(cluster)
	must(err)
	must(install(objects.Scheme()))
	must(apiextensions.AddToScheme(objects.Scheme()))
	implementation, err := suite.ParseImplementation(*flags.ImplementationOrganization, *flags.ImplementationProject,
		*flags.ImplementationURL, *flags.ImplementationVersion, *flags.ImplementationContact,
		*flags.ImplementationAdditionalInformation)
	must(err)

	limits := timeouts.DefaultTimeoutConfig()
	limits.CreateTimeout = 5 * time.Minute
	limits.DeleteTimeout = 5 * time.Minute
	limits.GetTimeout = 5 * time.Minute
	limits.NamespacesMustBeReady = 15 * time.Minute
	patient(&limits)
	conformance, err := suite.NewConformanceProfileTestSuite(suite.ConformanceProfileOptions{
		Options: suite.Options{
			Client:                     objects,
			ClientSet:                  clients,
			KubeConfig:                 *cluster,
			Debug:                      *flags.ShowDebug,
			CleanupBaseResources:       *flags.CleanupBaseResources,
			SupportedFeatures:          suite.ParseSupportedFeatures(*flags.SupportedFeatures),
			ExemptFeatures:             suite.ParseSupportedFeatures(*flags.ExemptFeatures),
			EnableAllSupportedFeatures: *flags.EnableAllSupportedFeatures,
			TimeoutConfig:              limits,
		},
		Implementation:      *implementation,
		ConformanceProfiles: suite.ParseConformanceProfiles(*flags.ConformanceProfiles),
	})
	must(err)
	conformance.Setup(t)
	must(conformance.Run(t, tests.ConformanceTests))
	report, err := conformance.Report()
	must(err)
	text, err := yaml.Marshal(report)
	must(err)
	must(os.WriteFile(*flags.ReportOutput, text, 0o644))
}
