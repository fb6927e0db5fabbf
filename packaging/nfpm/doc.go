// Package nfpm is the room of the packages: what they are called, need and say, and what their scripts do when they come
// and go. build.sh makes them. The tests here run the scripts against stand-ins for the programs that they call.
package nfpm
