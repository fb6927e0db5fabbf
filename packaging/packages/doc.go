// Package packages has the tests of the packages as they are installed: `make test-packages` builds them and runs these
// tests, which boot a Debian in a container, as a netvm between the networks and the AppVMs of the lab.
package packages
