package netvm

import (
	"errors"
	"net/url"
)

// maxPortalURL bounds the address of a captive portal, in bytes. It is NetworkManager's connectivity.uri, which an admin
// writes by hand; browsers take 2083 and more.
const maxPortalURL = 2048

// ParsePortalURL checks an address before a browser may be sent there: absolute, http or https, with a host and without a
// user name, at most 2048 bytes of printable ASCII. It comes back as it was. The error says what is wrong, without the
// text.
func ParsePortalURL(text string) (string, error) {
	if len(text) > maxPortalURL {
		return "", errors.New("it is longer than 2048 bytes")
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return "", errors.New("it has characters that are not printable ASCII")
		}
	}
	address, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("it is no URL")
	case address.Scheme != "http" && address.Scheme != "https":
		return "", errors.New("it begins with neither http:// nor https://")
	case address.Hostname() == "":
		return "", errors.New("it names no host")
	case address.User != nil:
		return "", errors.New("it has a user name")
	}
	return text, nil
}
