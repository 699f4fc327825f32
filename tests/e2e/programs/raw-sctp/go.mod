// SCTP for the test server, on kernels that have no sockets of it. tests/e2e/build.sh puts it in the place of the module of this name.
module github.com/ishidawataru/sctp

go 1.26.0
