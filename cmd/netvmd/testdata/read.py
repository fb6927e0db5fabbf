# Reads all of org.qubes_os.NetVM1 with python3-dbus, as another service would, and prints as JSON the D-Bus types
# of what came: of every property and every answer, and of the entries of the dictionaries in them.
import json
import sys

import dbus

NAME, PATH = "org.qubes_os.NetVM1", "/org/qubes_os/NetVM1"

BASIC = {
    dbus.Boolean: "b", dbus.Byte: "y", dbus.UInt32: "u", dbus.UInt64: "t", dbus.Int32: "i", dbus.String: "s",
}


def signature(value):
    if isinstance(value, dbus.Array):
        return "a" + str(value.signature)
    if isinstance(value, dbus.Dictionary):
        return "a{" + str(value.signature) + "}"
    if isinstance(value, dbus.Struct):
        return "(" + "".join(signature(v) for v in value) + ")"
    return BASIC[type(value)]


def entries(value):
    """The types of the entries of every dictionary in a list of dictionaries."""
    if not isinstance(value, dbus.Array) or str(value.signature) != "a{sv}":
        return []
    return [{str(k): signature(v) for k, v in d.items()} for d in value]


def described(value):
    return {"signature": signature(value), "entries": entries(value), "text": json.dumps(value, sort_keys=True)}


proxy = dbus.SystemBus().get_object(NAME, PATH, introspect=False)
properties = dbus.Interface(proxy, dbus.PROPERTIES_IFACE)
netvm = dbus.Interface(proxy, NAME)

everything = properties.GetAll(NAME)
statistics = netvm.GetStatistics()
json.dump({
    "all": {str(name): described(value) for name, value in everything.items()},
    "each": {str(name): described(properties.Get(NAME, name)) for name in everything},
    "routes": described(netvm.ListRoutes()),
    "statistics": {str(name): described(value) for name, value in statistics.items()},
}, sys.stdout)
