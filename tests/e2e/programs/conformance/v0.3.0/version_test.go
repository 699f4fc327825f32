package conformance

import (
	"time"

	api "sigs.k8s.io/network-policy-api/apis/v1beta1"
	timeouts "sigs.k8s.io/network-policy-api/conformance/utils/config"
)

var install = api.Install

// To start a program in a pod may take longer than the connection that it tries.
func patient(limits *timeouts.TimeoutConfig) { limits.PokeTimeout = time.Minute }
