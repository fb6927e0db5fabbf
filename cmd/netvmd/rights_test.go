package main

import (
	"errors"

	godbus "github.com/godbus/dbus/v5"
)

// busError is the name of the error that a call was answered with; "" = it was none.
func busError(err error) string {
	var e godbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}
