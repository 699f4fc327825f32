package conformance

import api "sigs.k8s.io/network-policy-api/apis/v1alpha1"

var install = api.Install
