package dbus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// rawCaller speaks the protocol itself, and so can send what no library would.
type rawCaller struct {
	t      testing.TB
	socket net.Conn
	in     *bufio.Reader
	serial uint32
}

func newRawCaller(t testing.TB) *rawCaller {
	t.Helper()
	socket, err := net.Dial("unix", strings.TrimPrefix(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "unix:path="))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	r := &rawCaller{t: t, socket: socket, in: bufio.NewReader(socket)}
	r.write([]byte("\x00AUTH EXTERNAL " + hex.EncodeToString([]byte(strconv.Itoa(os.Getuid()))) + "\r\n"))
	if line, err := r.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatalf("authentication: %q %v", line, err)
	}
	r.write([]byte("BEGIN\r\n"))
	r.call(busName, "/org/freedesktop/DBus", busName, "Hello", 0, "", nil)
	r.answer()
	return r
}

func (r *rawCaller) write(b []byte) {
	r.t.Helper()
	if _, err := r.socket.Write(b); err != nil {
		r.t.Fatalf("the bus has thrown the caller out: %v", err)
	}
}

// call sends a method call with a body as it is on the wire.
func (r *rawCaller) call(to, path, iface, member string, flags byte, signature string, body []byte) {
	r.t.Helper()
	if err := r.try(godbus.TypeMethodCall, to, path, iface, member, flags, signature, body); err != nil {
		r.t.Fatalf("the bus has thrown the caller out: %v", err)
	}
}

func (r *rawCaller) try(kind godbus.Type, to, path, iface, member string, flags byte, signature string, body []byte) error {
	r.serial++
	le := binary.LittleEndian
	m := []byte{'l', byte(kind), flags, 1}
	m = le.AppendUint32(m, uint32(len(body)))
	m = le.AppendUint32(m, r.serial)
	m = append(m, 0, 0, 0, 0)
	for _, f := range []struct {
		code        byte
		kind, value string
	}{{1, "o", path}, {2, "s", iface}, {3, "s", member}, {6, "s", to}} {
		m = append(align(m), f.code, 1, f.kind[0], 0)
		m = append(append(le.AppendUint32(m, uint32(len(f.value))), f.value...), 0)
	}
	if signature != "" {
		m = append(append(append(align(m), 8, 1, 'g', 0, byte(len(signature))), signature...), 0)
	}
	le.PutUint32(m[12:], uint32(len(m)-16))
	_, err := r.socket.Write(append(align(m), body...))
	return err
}

func (r *rawCaller) ours(member, signature string, body []byte) {
	r.t.Helper()
	r.call(Name, string(Path), Interface, member, 0, signature, body)
}

func align(m []byte) []byte { return append(m, make([]byte, (8-len(m)%8)%8)...) }

// answer reads the next answer: an error's name and sentence, or "".
func (r *rawCaller) answer() (name, sentence string) {
	r.t.Helper()
	for {
		m, err := godbus.DecodeMessage(r.in)
		if err != nil {
			r.t.Fatal(err)
		}
		switch m.Type {
		case godbus.TypeError:
			name, _ = m.Headers[godbus.FieldErrorName].Value().(string)
			return name, fmt.Sprint(m.Body...)
		case godbus.TypeMethodReply:
			return "", ""
		}
	}
}

// nested is the body of variants in each other, the innermost of which has a value of the signature.
func nested(depth int, signature string, value []byte) []byte {
	var b []byte
	for range depth - 1 {
		b = append(b, 1, 'v', 0)
	}
	b = append(append(append(b, byte(len(signature))), signature...), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return append(b, value...)
}

// boolKey is the body of {true: "x"}, of type a{bs}.
func boolKey() []byte {
	entry := []byte{1, 0, 0, 0, 1, 0, 0, 0, 'x', 0}
	return append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(entry))), 0, 0, 0, 0), entry...)
}

// The bus lets all of these pass. Some of them end a connection of godbus'.
func TestNoMessageEndsTheConnection(t *testing.T) {
	s := newScene(t)
	r := newRawCaller(t)
	owner := func() (owner string) {
		if err := ask(s.ctx, client(t).conn, "GetNameOwner", &owner, Name); err != nil {
			t.Fatal(err)
		}
		return owner
	}
	before := owner()
	le := binary.LittleEndian
	for what, send := range map[string]func(){
		"a dictionary with a boolean key":       func() { r.ours("Refresh", "a{bs}", boolKey()) },
		"variants as deep as the bus allows":    func() { r.ours("Refresh", "v", nested(64, "ay", le.AppendUint32(nil, 0))) },
		"an index of a file that was not sent":  func() { r.ours("Refresh", "h", le.AppendUint32(nil, 7)) },
		"the longest signature":                 func() { r.ours("Refresh", strings.Repeat("y", 255), make([]byte, 255)) },
		"structs as deep as a signature allows": func() { r.ours("Refresh", strings.Repeat("(", 32)+"y"+strings.Repeat(")", 32), []byte{1}) },
		"a value to set with deep variants": func() {
			r.call(Name, string(Path), properties, "Set", 0, "v", nested(64, "ay", le.AppendUint32(nil, 0)))
		},
	} {
		t.Run(what, func(t *testing.T) {
			send()
			if name, sentence := r.answer(); name != busInvalidArgs || !strings.Contains(sentence, "takes arguments of type") {
				t.Errorf("answered %s %s", name, sentence)
			}
		})
	}
	t.Run("flags of a later protocol", func(t *testing.T) {
		r.call(Name, string(Path), Interface, "Refresh", 0x80, "", nil)
		if name, sentence := r.answer(); name != "" {
			t.Errorf("answered %s %s", name, sentence)
		}
	})
	t.Run("a path of 100 kB, which gets no answer", func(*testing.T) {
		r.call(Name, "/"+strings.Repeat("x", 100_000), Interface, "Refresh", 0, "", nil)
	})
	r.ours("Refresh", "", nil)
	if name, sentence := r.answer(); name != "" {
		t.Errorf("afterwards Refresh is answered %s %s", name, sentence)
	}
	if after := owner(); after != before {
		t.Errorf("the service has connected anew: %s, %s before", after, before)
	}
}

func TestAStrangersSignalEndsNoConnection(t *testing.T) {
	s := newScene(t)
	c, r := client(t), newRawCaller(t)
	err := r.try(godbus.TypeSignal, uniqueName(c), string(Path), properties, propertiesChanged, 0, "a{bs}", boolKey())
	if err != nil {
		t.Fatal(err)
	}
	r.call(busName, "/org/freedesktop/DBus", busName, "GetId", 0, "", nil)
	r.answer() // the signal is with the client, or before what comes now
	if _, err := c.Status(s.ctx); err != nil {
		t.Error(err)
	}
}

func TestAGiantCallIsRefusedAndForgotten(t *testing.T) {
	s := newScene(t)
	r := newRawCaller(t)
	giant := giantStrings(4 << 20)
	for range 3 {
		r.ours("SetDnsOverride", "asb", giant)
		if name, _ := r.answer(); name != LimitsExceeded {
			t.Errorf("answered %s", name)
		}
	}
	if _, err := client(t).Refresh(s.ctx); err != nil {
		t.Error(err)
	}
}

// giantStrings is the body of SetDnsOverride with an array of that many bytes.
func giantStrings(size int) []byte {
	one := append(binary.LittleEndian.AppendUint32(nil, 3), "abc\x00"...)
	b := binary.LittleEndian.AppendUint32(nil, uint32(size))
	b = append(b, bytes.Repeat(one, size/len(one))...)
	return binary.LittleEndian.AppendUint32(b, 0) // false
}

// holdDaemon makes everything that the daemon is asked wait.
func (s *scene) holdDaemon() (release func()) {
	hold := make(chan struct{})
	s.daemon.mu.Lock()
	defer s.daemon.mu.Unlock()
	s.daemon.hold = hold
	return func() {
		s.daemon.mu.Lock()
		defer s.daemon.mu.Unlock()
		s.daemon.hold = nil
		close(hold)
	}
}

// parallel makes calls at the same time, and counts their errors by name; "" is none.
func parallel(calls int, call func() error) map[string]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	counted := map[string]int{}
	for range calls {
		all.Add(1)
		go func() {
			defer all.Done()
			err := call()
			var e Error
			name := ""
			if errors.As(err, &e) {
				name = e.Name
			} else if err != nil {
				name = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			counted[name]++
		}()
	}
	all.Wait()
	return counted
}

func TestOneCallerHasOnlySoManyCallsInWork(t *testing.T) {
	s := newScene(t)
	release := s.holdDaemon()
	busy := client(t)
	var all sync.WaitGroup
	for range callsOfSender {
		all.Add(1)
		go func() {
			defer all.Done()
			if _, err := busy.Refresh(s.ctx); err != nil {
				t.Error(err)
			}
		}()
		s.daemon.until(t, "refresh")
	}
	refused := func() error { _, err := busy.Refresh(s.ctx); return err }
	if got := parallel(50, refused); got[LimitsExceeded] != 50 {
		t.Errorf("of 50 calls too many: %v", got)
	}
	if _, err := busy.Status(s.ctx); err != nil { // reading is no work
		t.Error(err)
	}
	release()
	if _, err := client(t).Refresh(s.ctx); err != nil { // another caller waits no longer than the daemon
		t.Error(err)
	}
	all.Wait()
	if _, err := busy.Refresh(s.ctx); err != nil { // and all places are free again
		t.Error(err)
	}
}

func TestAllCallersTogetherHaveOnlySoManyCallsInWork(t *testing.T) {
	s := newScene(t)
	release := s.holdDaemon()
	var all sync.WaitGroup
	for range callsInWork / callsOfSender {
		c := client(t)
		for range callsOfSender {
			all.Add(1)
			go func() { defer all.Done(); _, _ = c.Refresh(s.ctx) }() // each is asserted by what the daemon says
			s.daemon.until(t, "refresh")
		}
	}
	c := client(t)
	if _, err := c.Refresh(s.ctx); !isLimit(err) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Status(s.ctx); err != nil {
		t.Error(err)
	}
	release()
	all.Wait()
	if _, err := c.Refresh(s.ctx); err != nil {
		t.Error(err)
	}
}

func TestReadersTakeNoPlaceFromWhoSteers(t *testing.T) {
	s := newScene(t)
	reads := make(chan struct{})
	s.daemon.mu.Lock()
	s.daemon.reads = reads
	s.daemon.mu.Unlock()
	var all sync.WaitGroup
	for range callsInWork / callsOfSender {
		c := as(t, nobody)
		for range callsOfSender {
			all.Add(1)
			go func() { defer all.Done(); _, _ = c.Routes(s.ctx) }() // it is the next reader that counts
		}
	}
	for full := false; !full; { // they come one after the other
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		_, err := client(t).Routes(ctx)
		full = isLimit(err)
		cancel()
	}
	if _, err := client(t).Refresh(s.ctx); err != nil {
		t.Error(err)
	}
	close(reads)
	all.Wait()
}

func isLimit(err error) bool {
	var e Error
	return errors.As(err, &e) && e.Name == LimitsExceeded
}

func TestPolkitIsAskedOnlySoManyQuestionsForAUser(t *testing.T) {
	s := newScene(t)
	polkit := newPolkit(t)
	done := make(chan error, 100)
	for range questionsOfUser {
		c := as(t, nobody)
		go func() { _, err := c.Refresh(s.ctx); done <- err }()
		<-polkit.questions
	}
	if _, err := as(t, nobody).Refresh(s.ctx); !isLimit(err) || !strings.Contains(err.Error(), "of user 65534") {
		t.Errorf("got %v", err)
	}
	if _, err := client(t).Refresh(s.ctx); err != nil {
		t.Errorf("root waits for strangers: %v", err)
	}
	for range questionsOfUser {
		polkit.answers <- answer{authorized: true}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAFloodOfReadersCostsFewReadingsOfTheKernel(t *testing.T) {
	s := newScene(t)
	var clients []*Client
	for range 20 {
		clients = append(clients, client(t))
	}
	next := make(chan *Client, len(clients))
	for _, c := range clients {
		next <- c
	}
	began := time.Now()
	got := parallel(len(clients), func() error {
		c := <-next
		for range 3 { // each asks again when it was answered
			if _, _, err := c.Statistics(s.ctx); err != nil {
				return err
			}
			if _, err := c.Routes(s.ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if got[""] != len(clients) {
		t.Errorf("got %v", got)
	}
	readings := map[string]int{}
	for len(s.daemon.happened) > 0 {
		readings[<-s.daemon.happened]++
	}
	most := int(time.Since(began)/sharedPause) + 2 // one at once, and one for those that ask at the end
	if readings["tally"] > most || readings["routes"] > most {
		t.Errorf("readings: %v, want %d at most", readings, most)
	}
}

func TestAnAnswerIsNeverOlderThanItsQuestion(t *testing.T) {
	s := newScene(t)
	c := client(t)
	for n := uint64(1); n <= 3; n++ {
		status := sample()
		status.Statistics.Applies = n
		s.service.Publish(status)
		if got, _, err := c.Statistics(s.ctx); err != nil || got.Applies != n {
			t.Errorf("got %d, %v, want %d", got.Applies, err, n)
		}
	}
}

// skip reads the next message, and does not look at it.
func (r *rawCaller) skip() {
	r.t.Helper()
	h, err := r.in.Peek(16)
	if err != nil {
		r.t.Fatal(err)
	}
	body, fields := binary.LittleEndian.Uint32(h[4:]), binary.LittleEndian.Uint32(h[12:])
	if _, err := r.in.Discard(16 + (int(fields)+7)&^7 + int(body)); err != nil {
		r.t.Fatal(err)
	}
}

// The bus keeps what a caller does not read, and at last stops reading from whoever sends it.
func TestCallersThatDoNotReadTheirAnswersKeepNoOverrideInForce(t *testing.T) {
	s := newScene(t, `<limit name="max_incoming_bytes">100000</limit>`)
	holder := client(t)
	s.set(t, holder)
	greedy := newRawCaller(t)
	go func() {
		body := append(binary.LittleEndian.AppendUint32(nil, uint32(len(Interface))), Interface+"\x00"...)
		for greedy.try(godbus.TypeMethodCall, Name, string(Path), properties, "GetAll", 0, "s", body) == nil { // until the test ends
		}
	}()
	for stuck := false; !stuck; {
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		_, err := client(t).Status(ctx)
		stuck = errors.Is(err, context.DeadlineExceeded)
		cancel()
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	s.daemon.until(t, "left")
}
