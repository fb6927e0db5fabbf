// Package tray is the room of the applet netvm-tray: a pure view built from a status, and the binding to systray,
// which no other package may import. Nothing is built yet.
package tray
