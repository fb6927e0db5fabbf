package nmhook

import (
	"io"
	"log/slog"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// variantFrom makes a value of any type that the bus can carry from the fuzzer's bytes.
func variantFrom(data *[]byte, depth int) any {
	take := func() byte {
		if len(*data) == 0 {
			return 0
		}
		b := (*data)[0]
		*data = (*data)[1:]
		return b
	}
	text := func() string {
		n := min(int(take()), len(*data))
		s := string((*data)[:n])
		*data = (*data)[n:]
		return s
	}
	kind, n := take()%14, int(take()%4)
	if depth > 4 && kind > 7 {
		kind %= 8
	}
	switch kind {
	case 0:
		return text()
	case 1:
		return int32(int8(take()))
	case 2:
		return uint32(take())
	case 3:
		return take() != 0
	case 4:
		return []byte(text())
	case 5:
		return godbus.ObjectPath(text())
	case 6:
		return []string{text(), text()}[:n%3]
	case 7:
		return int64(take())
	case 8:
		return godbus.MakeVariant(variantFrom(data, depth+1))
	case 9, 10:
		dicts := make([]map[string]godbus.Variant, n)
		for i := range dicts {
			dicts[i] = map[string]godbus.Variant{}
			for _, key := range []string{"nameservers", "priority", "interface", "vpn", text()} {
				if take()%2 == 0 {
					dicts[i][key] = godbus.MakeVariant(variantFrom(data, depth+1))
				}
			}
		}
		return dicts
	case 11, 12:
		entries := make([][]any, n)
		for i := range entries {
			for range take() % 5 {
				entries[i] = append(entries[i], variantFrom(data, depth+1))
			}
			if take()%2 == 0 {
				entries[i] = []any{int32(int8(take())), int32(take() % 12), []byte(text())}
			}
		}
		return entries
	default:
		values := make([]any, n)
		for i := range values {
			values[i] = variantFrom(data, depth+1)
		}
		return values
	}
}

func FuzzResolvedServers(f *testing.F) {
	f.Add([]byte{11, 1, 0, 0, 2, 2, 4, 9, 9, 9, 9})
	f.Add([]byte{0, 0, 3, 'a', 'b', 'c'})
	f.Fuzz(func(t *testing.T, data []byte) {
		value := godbus.Variant{}
		if v := variantFrom(&data, 0); len(data)%2 == 0 {
			value = safeVariant(v)
		}
		servers, err := decodeResolved(value, func(int) string { return "eth0" })
		for _, s := range servers {
			if !s.Resolver.Addr.IsValid() || s.Link < 0 {
				t.Errorf("server %+v", s)
			}
		}
		entries, whole := value.Value().([][]any)
		if whole && len(servers)+len(lines(err)) != len(entries) {
			t.Errorf("%d servers and %d faults from %d entries", len(servers), len(lines(err)), len(entries))
		}
		if !whole && err == nil {
			t.Errorf("%v is taken for a(iiay)", value)
		}
	})
}

func FuzzNetworkManagerConfiguration(f *testing.F) {
	f.Add([]byte{9, 1, 0, 6, 1, 9, '1', '9', '2', '.', '0', '.', '2', '.', '1'})
	f.Add([]byte{9, 2, 0, 0, 0, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := decodeConfiguration(safeVariant(variantFrom(&data, 0)))
		if err != nil && len(lines(err)) == 0 {
			t.Error("an error without a word")
		}
		entries, _, _ := parseEntries(config)
		if len(entries) != len(config) {
			t.Errorf("%d entries from %d", len(entries), len(config))
		}
		for _, e := range entries {
			if !isInterfaceName(e.Interface) {
				t.Errorf("interface %q", e.Interface)
			}
			for _, a := range e.Servers {
				if !a.IsValid() {
					t.Errorf("server %v", a)
				}
			}
		}
	})
}

// FuzzSignals looks for a signal body that stops the watcher.
func FuzzSignals(f *testing.F) {
	f.Add([]byte{13, 3, 0, 0, 1, 'x'}, 0)
	f.Fuzz(func(_ *testing.T, data []byte, which int) {
		signal := &godbus.Signal{}
		for range 3 {
			signal.Body = append(signal.Body, variantFrom(&data, 0))
		}
		if which%3 == 0 {
			signal.Body[0] = nmDNSInterface
			signal.Body[1] = map[string]godbus.Variant{"Configuration": safeVariant(signal.Body[1])}
			signal.Body[2] = []string{}
		}
		s := fuzzSession()
		for _, at := range []struct {
			sender, name string
			path         godbus.ObjectPath
		}{
			{busName, ownerChanged, "/org/freedesktop/DBus"},
			{nmName, propertiesChanged, nmDNSPath},
			{nmName, propertiesChanged, nmPath},
			{resolvedName, propertiesChanged, resolvedPath},
			{loginName, loginIface + ".PrepareForSleep", loginPath},
		} {
			signal.Sender, signal.Name, signal.Path = at.sender, at.name, at.path
			s.dispatch(signal, fuzzTime)
		}
	})
}

// safeVariant is MakeVariant without its panic for what has no signature, such as an empty list of nothing.
func safeVariant(v any) (out godbus.Variant) {
	defer func() {
		if recover() != nil {
			out = godbus.Variant{}
		}
	}()
	return godbus.MakeVariant(v)
}

var fuzzTime = time.Unix(1, 0)

// fuzzSession takes the well-known names themselves for their owners' unique names.
func fuzzSession() *session {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return &session{board: newBoard(log, DefaultResolvConf), log: log, nm: &nmMemory{},
		points: map[godbus.ObjectPath]bool{}, owners: map[string]string{nmName: nmName, resolvedName: resolvedName, loginName: loginName}}
}
