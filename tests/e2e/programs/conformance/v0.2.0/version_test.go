package conformance

import api "sigs.k8s.io/network-policy-api/apis/v1alpha2"

var install = api.Install
