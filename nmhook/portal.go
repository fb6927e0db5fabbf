package nmhook

import (
	"context"
	"errors"
	"fmt"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// portalProperty is NetworkManager's since 1.20: the setting connectivity.uri of NetworkManager.conf(5). NetworkManager asks
// for this address and sees by the answer whether a captive portal is in the way; so who asks for it with a browser is led
// to the portal's page.
const portalProperty = "ConnectivityCheckUri"

// portalURL reads the address that leads to a captive portal, while there is one. An address to which no browser should be
// sent is no fault of the uplinks: it is left out, and noted.
func (s *session) portalURL(ctx context.Context, state netvm.State) (address string, notes []string, err error) {
	if state != netvm.Portal {
		return "", nil, nil
	}
	value, err := s.property(ctx, nmName, nmPath, nmName, portalProperty)
	if isUnknownProperty(err) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	text, is := value.Value().(string)
	if is && text == "" {
		return "", nil, nil
	}
	if address, err = netvm.ParsePortalURL(text); err != nil {
		return "", []string{fmt.Sprintf("NetworkManager's %s, %s, leads to no captive portal: %v. Mend connectivity.uri in "+
			"NetworkManager.conf, or open any http page in a browser.", portalProperty, quoteVariant(value), err)}, nil
	}
	return address, nil, nil
}

// isUnknownProperty recognizes how GLib's D-Bus, which NetworkManager is made with, and others refuse a property that there
// is not.
func isUnknownProperty(err error) bool {
	var refused godbus.Error
	return errors.As(err, &refused) &&
		(refused.Name == busName+".Error.InvalidArgs" || refused.Name == busName+".Error.UnknownProperty")
}
