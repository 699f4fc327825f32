//! Kinds of other projects that an answer depends on although nothing of them is read: those that change which
//! connections are possible, and those whose controllers make pods elsewhere.
//!
//! One table each. A kind that is in neither is counted and has no other effect.

/// Kinds that change which connections are possible: group, kinds, and the effect as the end of a warning. A kind that
/// ends with `*` or begins with it stands for all names with this beginning or end.
const DECIDING: &[(&str, &[&str], &str)] = &[
    ("policy.networking.k8s.io", &["*NetworkPolicy"], POLICY),
    ("cilium.io", &["*NetworkPolicy", "CiliumLocalRedirectPolicy", "CiliumEgressGatewayPolicy"], POLICY),
    ("crd.projectcalico.org", CALICO, POLICY),
    ("projectcalico.org", CALICO, POLICY),
    ("crd.antrea.io", &["*NetworkPolicy"], POLICY),
    ("crd.antrea.tanzu.vmware.com", &["*NetworkPolicy"], POLICY),
    ("security.antrea.tanzu.vmware.com", &["*NetworkPolicy"], POLICY),
    ("nsx.vmware.com", &["NetworkPolicy", "SecurityPolicy"], POLICY),
    ("crd.nsx.vmware.com", &["NetworkPolicy", "SecurityPolicy"], POLICY),
    ("networking.k8s.aws", &["*NetworkPolicy", "*PolicyEndpoint"], POLICY),
    ("vpcresources.k8s.aws", &["SecurityGroupPolicy"], POLICY),
    ("networking.gke.io", &["*NetworkPolicy"], POLICY),
    ("networking.gke.io", &["Network", "GKENetworkParamSet"], NETWORK),
    ("k8s.ovn.org", &["EgressFirewall"], POLICY),
    ("k8s.ovn.org", &["AdminPolicyBasedExternalRoute"], "it sends traffic to other gateways"),
    ("k8s.ovn.org", &["UserDefinedNetwork", "ClusterUserDefinedNetwork"], OWN_NETWORK),
    ("network.openshift.io", &["EgressNetworkPolicy"], POLICY),
    ("network.openshift.io", &["NetNamespace"], OWN_NETWORK),
    ("k8s.cni.cncf.io", &["MultiNetworkPolicy"], POLICY),
    ("k8s.cni.cncf.io", &["NetworkAttachmentDefinition"], NETWORK),
    ("kubeovn.io", &["Subnet", "Vpc"], OWN_NETWORK),
    ("kubeovn.io", &["SecurityGroup"], POLICY),
    ("security.istio.io", &["AuthorizationPolicy", "PeerAuthentication"], MESH),
    ("networking.istio.io", &["Sidecar"], MESH),
    ("policy.linkerd.io", &["Server", "ServerAuthorization", "AuthorizationPolicy", "EgressNetwork"], MESH),
    ("kuma.io", &["MeshTrafficPermission", "TrafficPermission", "MeshPassthrough"], MESH),
    ("consul.hashicorp.com", &["ServiceIntentions"], MESH),
    ("access.smi-spec.io", &["TrafficTarget"], MESH),
    ("security.kubearmor.com", &["KubeArmor*"], POLICY),
];

const CALICO: &[&str] = &["NetworkPolicy", "GlobalNetworkPolicy"];

/// The effect of another project's policies, which is in the message's first words.
const POLICY: &str = "";
const MESH: &str = "the proxies of the mesh may deny connections that these verdicts allow";
pub(crate) const NETWORK: &str = "pods get other networks from it, and no verdict is about these";
pub(crate) const OWN_NETWORK: &str = "it puts pods into a network of their own, which others may not reach";

/// How to get the pods that another project makes of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cure {
    /// A program that writes what they make, as manifests.
    Render(&'static str),
    /// Only a cluster in which the controller runs has the pods.
    Snapshot,
}

impl Cure {
    /// The program that renders the objects, if there is one.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Self::Render(program) => Some(program),
            Self::Snapshot => None,
        }
    }
}

const FLUX_BUILD: Cure = Cure::Render("flux build kustomization");
const HELM: Cure = Cure::Render("helm template");
const ARGO_CD: Cure = Cure::Render("argocd app manifests");

/// Kinds whose controllers make pods that no manifest describes: group, kinds, and how to get the pods.
const MAKING_PODS: &[(&str, &[&str], Cure)] = &[
    // GitOps and packages
    ("helm.toolkit.fluxcd.io", &["HelmRelease"], HELM),
    ("helm.fluxcd.io", &["HelmRelease"], HELM),
    ("helm.cattle.io", &["HelmChart"], HELM),
    ("kustomize.toolkit.fluxcd.io", &["Kustomization"], FLUX_BUILD),
    ("fluxcd.controlplane.io", &["FluxInstance", "ResourceSet"], Cure::Snapshot),
    ("argoproj.io", &["Application", "ApplicationSet"], ARGO_CD),
    (
        "argoproj.io",
        &["ArgoCD", "CronWorkflow", "EventBus", "EventSource", "Sensor", "Workflow"],
        Cure::Snapshot,
    ),
    ("core.oam.dev", &["Application"], Cure::Snapshot),
    ("fleet.cattle.io", &["Bundle", "GitRepo"], Cure::Snapshot),
    ("apps.open-cluster-management.io", &["Subscription"], Cure::Snapshot),
    ("operators.coreos.com", &["ClusterServiceVersion", "Subscription"], Cure::Snapshot),
    ("template.openshift.io", &["Template"], Cure::Render("oc process --local")),
    ("", &["Template"], Cure::Render("oc process --local")),
    ("pkg.crossplane.io", &["Function", "Provider"], Cure::Snapshot),
    // Workloads
    ("apps.kruise.io", &["UnitedDeployment"], Cure::Snapshot),
    ("leaderworkerset.x-k8s.io", &["LeaderWorkerSet"], Cure::Snapshot),
    ("jobset.x-k8s.io", &["JobSet"], Cure::Snapshot),
    ("keda.sh", &["ScaledJob"], Cure::Snapshot),
    ("batch.volcano.sh", &["Job"], Cure::Snapshot),
    ("tekton.dev", &["PipelineRun", "TaskRun"], Cure::Snapshot),
    ("triggers.tekton.dev", &["EventListener"], Cure::Snapshot),
    ("kubeflow.org", &["*Job", "Notebook"], Cure::Snapshot),
    ("trainer.kubeflow.org", &["TrainJob"], Cure::Snapshot),
    ("ray.io", &["RayCluster", "RayJob", "RayService"], Cure::Snapshot),
    ("sparkoperator.k8s.io", &["ScheduledSparkApplication", "SparkApplication"], Cure::Snapshot),
    ("flink.apache.org", &["FlinkDeployment"], Cure::Snapshot),
    ("serving.kserve.io", &["InferenceService"], Cure::Snapshot),
    ("camel.apache.org", &["Integration"], Cure::Snapshot),
    ("agones.dev", &["Fleet", "GameServer", "GameServerSet"], Cure::Snapshot),
    ("actions.github.com", &["AutoscalingRunnerSet"], Cure::Snapshot),
    ("actions.summerwind.dev", &["Runner", "RunnerDeployment", "RunnerSet"], Cure::Snapshot),
    // Monitoring and logging
    (
        "monitoring.coreos.com",
        &["Alertmanager", "Prometheus", "PrometheusAgent", "ThanosRuler"],
        Cure::Snapshot,
    ),
    ("monitoring.rhobs", &["MonitoringStack"], Cure::Snapshot),
    ("grafana.integreatly.org", &["Grafana"], Cure::Snapshot),
    ("integreatly.org", &["Grafana"], Cure::Snapshot),
    ("loki.grafana.com", &["LokiStack"], Cure::Snapshot),
    ("tempo.grafana.com", &["TempoMonolithic", "TempoStack"], Cure::Snapshot),
    ("operator.victoriametrics.com", &["VL*", "VMA*", "VMCluster", "VMSingle", "VT*"], Cure::Snapshot),
    ("jaegertracing.io", &["Jaeger"], Cure::Snapshot),
    ("opentelemetry.io", &["OpenTelemetryCollector"], Cure::Snapshot),
    ("logging.banzaicloud.io", &["FluentbitAgent", "Logging"], Cure::Snapshot),
    ("logging.openshift.io", &["ClusterLogging"], Cure::Snapshot),
    ("fluentbit.fluent.io", &["Collector", "FluentBit"], Cure::Snapshot),
    ("fluentd.fluent.io", &["Fluentd"], Cure::Snapshot),
    ("datadoghq.com", &["DatadogAgent"], Cure::Snapshot),
    ("dynatrace.com", &["DynaKube"], Cure::Snapshot),
    // Databases, queues and stores
    ("acid.zalan.do", &["postgresql"], Cure::Snapshot),
    ("postgresql.cnpg.io", &["Cluster", "Pooler"], Cure::Snapshot),
    ("postgres-operator.crunchydata.com", &["PGAdmin", "PostgresCluster"], Cure::Snapshot),
    ("stackgres.io", &["SGCluster"], Cure::Snapshot),
    ("pgv2.percona.com", &["PerconaPGCluster"], Cure::Snapshot),
    ("pxc.percona.com", &["PerconaXtraDBCluster"], Cure::Snapshot),
    ("ps.percona.com", &["PerconaServerMySQL"], Cure::Snapshot),
    ("psmdb.percona.com", &["PerconaServerMongoDB"], Cure::Snapshot),
    ("mysql.oracle.com", &["InnoDBCluster"], Cure::Snapshot),
    ("k8s.mariadb.com", &["MariaDB", "MaxScale"], Cure::Snapshot),
    ("mariadb.mmontes.io", &["MariaDB"], Cure::Snapshot),
    ("mongodb.com", &["MongoDB", "MongoDBOpsManager"], Cure::Snapshot),
    ("mongodbcommunity.mongodb.com", &["MongoDBCommunity"], Cure::Snapshot),
    ("redis.redis.opstreelabs.in", &["Redis*"], Cure::Snapshot),
    ("databases.spotahome.com", &["RedisFailover"], Cure::Snapshot),
    ("app.redislabs.com", &["RedisEnterpriseCluster"], Cure::Snapshot),
    ("dragonflydb.io", &["Dragonfly"], Cure::Snapshot),
    ("hazelcast.com", &["Hazelcast"], Cure::Snapshot),
    ("infinispan.org", &["Infinispan"], Cure::Snapshot),
    ("cassandra.datastax.com", &["CassandraDatacenter"], Cure::Snapshot),
    ("k8ssandra.io", &["K8ssandraCluster"], Cure::Snapshot),
    ("scylla.scylladb.com", &["ScyllaCluster"], Cure::Snapshot),
    ("crdb.cockroachlabs.com", &["CrdbCluster"], Cure::Snapshot),
    ("pingcap.com", &["TidbCluster"], Cure::Snapshot),
    ("clickhouse.altinity.com", &["ClickHouseInstallation"], Cure::Snapshot),
    ("clickhouse-keeper.altinity.com", &["ClickHouseKeeperInstallation"], Cure::Snapshot),
    ("kubedb.com", &["*"], Cure::Snapshot),
    ("apps.kubeblocks.io", &["Cluster"], Cure::Snapshot),
    ("elasticsearch.k8s.elastic.co", &["Elasticsearch"], Cure::Snapshot),
    ("kibana.k8s.elastic.co", &["Kibana"], Cure::Snapshot),
    ("logstash.k8s.elastic.co", &["Logstash"], Cure::Snapshot),
    ("apm.k8s.elastic.co", &["ApmServer"], Cure::Snapshot),
    ("beat.k8s.elastic.co", &["Beat"], Cure::Snapshot),
    ("agent.k8s.elastic.co", &["Agent"], Cure::Snapshot),
    ("enterprisesearch.k8s.elastic.co", &["EnterpriseSearch"], Cure::Snapshot),
    ("opensearch.opster.io", &["OpenSearchCluster"], Cure::Snapshot),
    ("solr.apache.org", &["SolrCloud"], Cure::Snapshot),
    ("druid.apache.org", &["Druid"], Cure::Snapshot),
    (
        "kafka.strimzi.io",
        &["Kafka", "KafkaBridge", "KafkaConnect", "KafkaMirrorMaker*", "KafkaNodePool"],
        Cure::Snapshot,
    ),
    ("rabbitmq.com", &["RabbitmqCluster"], Cure::Snapshot),
    ("broker.amq.io", &["ActiveMQArtemis"], Cure::Snapshot),
    ("zookeeper.pravega.io", &["ZookeeperCluster"], Cure::Snapshot),
    ("minio.min.io", &["Tenant"], Cure::Snapshot),
    ("ceph.rook.io", &["CephCluster", "CephFilesystem", "CephObjectStore"], Cure::Snapshot),
    // Everything else
    ("k8s.keycloak.org", &["Keycloak"], Cure::Snapshot),
    ("vault.banzaicloud.com", &["Vault"], Cure::Snapshot),
    ("install.istio.io", &["IstioOperator"], Cure::Render("istioctl manifest generate")),
    ("sailoperator.io", &["Istio", "IstioCNI", "ZTunnel"], Cure::Snapshot),
    ("operator.tigera.io", &["APIServer", "Installation"], Cure::Snapshot),
    ("operator.knative.dev", &["KnativeEventing", "KnativeServing"], Cure::Snapshot),
    ("operator.tekton.dev", &["TektonConfig"], Cure::Snapshot),
    ("gateway-operator.konghq.com", &["ControlPlane", "DataPlane"], Cure::Snapshot),
    ("apps.gitlab.com", &["GitLab", "Runner"], Cure::Snapshot),
    ("jenkins.io", &["Jenkins"], Cure::Snapshot),
    ("temporal.io", &["TemporalCluster"], Cure::Snapshot),
];

fn is_listed(kinds: &[&str], kind: &str) -> bool {
    kinds.iter().any(|pattern| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => kind.ends_with(end),
        (_, Some(start)) => kind.starts_with(start),
        _ => *pattern == kind,
    })
}

/// Returns how to get the pods of an object, if the kind's controller makes pods.
pub(crate) fn makes_pods(group: &str, kind: &str) -> Option<Cure> {
    MAKING_PODS.iter().find(|(g, kinds, _)| *g == group && is_listed(kinds, kind)).map(|(_, _, cure)| *cure)
}

/// Returns the warning about an object that changes which connections are possible. A kind of any project that is called
/// a network policy is one.
pub(crate) fn warning(group: &str, api_version: &str, kind: &str) -> Option<String> {
    let row = DECIDING.iter().find(|(g, kinds, _)| *g == group && is_listed(kinds, kind));
    // Calico's staged policies only report what they would deny.
    let is_called_policy = || kind.ends_with("NetworkPolicy") && !kind.starts_with("Staged");
    match row.map(|(_, _, effect)| *effect) {
        Some(POLICY) => Some(policies_of(api_version)),
        Some(effect) => Some(format!("{kind} of {api_version} is not evaluated: {effect}")),
        None => is_called_policy().then(|| policies_of(api_version)),
    }
}

fn policies_of(api_version: &str) -> String {
    format!("policies of {api_version} are not evaluated: verdicts ignore this one")
}

/// Returns whether another project has the group.
pub(crate) fn has_group(group: &str) -> bool {
    DECIDING
        .iter()
        .map(|(g, ..)| g)
        .chain(MAKING_PODS.iter().map(|(g, ..)| g))
        .any(|g| *g == group && !g.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_any_project_warn() {
        for (version, kind) in [
            ("cilium.io/v2", "CiliumNetworkPolicy"),
            ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
            ("crd.projectcalico.org/v1", "GlobalNetworkPolicy"),
            ("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy"),
            ("networking.gke.io/v1alpha1", "FQDNNetworkPolicy"),
            ("networking.k8s.aws/v1alpha1", "ApplicationNetworkPolicy"),
            ("security.kubearmor.com/v1", "KubeArmorHostPolicy"),
            ("k8s.ovn.org/v1", "EgressFirewall"),
            ("networking.acme.io/v1", "AcmeNetworkPolicy"),
        ] {
            let group = version.split_once('/').unwrap().0;
            let expected = format!("policies of {version} are not evaluated: verdicts ignore this one");
            assert_eq!(warning(group, version, kind), Some(expected));
        }
        for (version, kind, part) in [
            ("k8s.ovn.org/v1", "UserDefinedNetwork", "network of their own"),
            ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "other networks"),
            ("security.istio.io/v1", "AuthorizationPolicy", "mesh"),
        ] {
            let group = version.split_once('/').unwrap().0;
            let message = warning(group, version, kind).unwrap();
            assert!(message.starts_with(&format!("{kind} of {version} is not evaluated: ")), "{message}");
            assert!(message.contains(part), "{message}");
        }
        for (group, kind) in [
            ("projectcalico.org", "StagedNetworkPolicy"),
            ("cilium.io", "CiliumNode"),
            ("networking.istio.io", "VirtualService"),
            ("kyverno.io", "ClusterPolicy"),
        ] {
            assert_eq!(warning(group, group, kind), None, "{group} {kind}");
        }
    }

    #[test]
    fn every_row_has_a_meaning_of_its_own() {
        for (n, (group, kinds, _)) in MAKING_PODS.iter().enumerate() {
            for kind in *kinds {
                let others =
                    MAKING_PODS[..n].iter().filter(|(g, kinds, _)| g == group && is_listed(kinds, kind));
                assert_eq!(others.count(), 0, "{group} {kind} is listed twice");
                assert_eq!(warning(group, group, kind), None, "{group} {kind} is in both tables");
            }
        }
        assert_eq!(makes_pods("argoproj.io", "Application"), Some(ARGO_CD));
        assert_eq!(makes_pods("argoproj.io", "AppProject"), None);
        assert_eq!(makes_pods("kafka.strimzi.io", "KafkaTopic"), None);
        assert_eq!(makes_pods("kafka.strimzi.io", "KafkaMirrorMaker2"), Some(Cure::Snapshot));
    }
}
