// Package formats has the tests of what the packages are, in all their formats, without installing them: the files and what
// is said of them, what the distributions' own checkers find, and that what is built twice is the same. `make test-packages`
// runs them.
package formats
