package dialog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds what a test waits for. It is only reached by a failing test.
const patience = 20 * time.Second

// lines is a protocol whose messages are lines; those that begin with ! are events, and ? is none at all.
func lines(events chan<- string) Protocol[string] {
	return Protocol[string]{
		Read: func(r io.Reader) (string, error) {
			line, err := r.(*bufio.Reader).ReadString('\n')
			if err == nil && strings.HasPrefix(line, "?") {
				err = fmt.Errorf("garbage %q", line)
			}
			return strings.TrimSuffix(line, "\n"), err
		},
		Event: func(line string) (bool, error) {
			event := strings.HasPrefix(line, "!")
			if event {
				events <- line
			}
			return event, nil
		},
	}
}

// connect returns a connection and the other side of it.
func connect(t *testing.T) (*Conn[string], net.Conn, chan string) {
	ours, theirs := net.Pipe()
	events := make(chan string, 10)
	c := New[string](ours, lines(events))
	t.Cleanup(func() {
		_ = c.Close() // some tests end it themselves
		_ = theirs.Close()
	})
	return c, theirs, events
}

// answerer writes an answer, as it is given, to every line that it reads.
func answerer(t *testing.T, conn net.Conn, answer func(line string) string) {
	go func() {
		in := bufio.NewReader(conn)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if _, err := io.WriteString(conn, answer(strings.TrimSuffix(line, "\n"))); err != nil {
				t.Errorf("answer: %v", err)
				return
			}
		}
	}()
}

// ask collects the lines of an answer up to one that is a dot.
func ask(ctx context.Context, c *Conn[string], request string) (got []string, err error) {
	err = c.Ask(ctx, []byte(request+"\n"), func(line string) (bool, error) {
		if line == "bad" {
			return false, errors.New("a bad answer")
		}
		if line != "." {
			got = append(got, line)
		}
		return line == ".", nil
	})
	return got, err
}

func TestAnEventInTheMiddleOfAnAnswerIsHeardAndTheAnswerIsWhole(t *testing.T) {
	c, other, events := connect(t)
	answerer(t, other, func(string) string { return "one\n!event\ntwo\n.\n!last\n" })
	got, err := ask(context.Background(), c, "x")
	if err != nil || strings.Join(got, " ") != "one two" {
		t.Errorf("got %q, %v", got, err)
	}
	if a, b := <-events, <-events; a != "!event" || b != "!last" {
		t.Errorf("events %s, %s", a, b)
	}
}

func TestEveryoneGetsTheAnswerToTheirQuestion(t *testing.T) {
	c, other, _ := connect(t)
	answerer(t, other, func(line string) string { return line + "\n.\n" })
	var all sync.WaitGroup
	for i := range 20 {
		all.Add(1)
		go func() {
			defer all.Done()
			for j := range 50 {
				want := fmt.Sprintf("%d of %d", j, i)
				if got, err := ask(context.Background(), c, want); err != nil || len(got) != 1 || got[0] != want {
					t.Errorf("asked %s: %q, %v", want, got, err)
					return
				}
			}
		}()
	}
	all.Wait()
}

func TestWhatEndsAConnectionIsSaidToTheOneWhoAsksAndToAllAfter(t *testing.T) {
	for _, tc := range []struct {
		name, answer, want string
	}{
		{"garbage", "one\n?\n", `garbage "?\n"`},
		{"an answer that its reader does not take", "bad\n", "a bad answer"},
		{"a second answer", "one\n.\ntwo\n", "an answer that nobody has asked for"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, other, _ := connect(t)
			go func() {
				if _, err := other.Read(make([]byte, 100)); err == nil {
					_, _ = io.WriteString(other, tc.answer) // the end may come before all is read
				}
			}()
			_, first := ask(context.Background(), c, "x")
			select {
			case <-c.Done():
			case <-time.After(patience):
				t.Fatal("the connection does not end")
			}
			_, second := ask(context.Background(), c, "y")
			if tc.name != "a second answer" && (first == nil || first.Error() != tc.want) {
				t.Errorf("the first is told %v, want %s", first, tc.want)
			}
			if second == nil || second.Error() != tc.want || c.Err().Error() != tc.want {
				t.Errorf("the second is told %v, want %s", second, tc.want)
			}
		})
	}
}

func TestTheOtherSidesEndIsNoticedWithoutAQuestion(t *testing.T) {
	c, other, _ := connect(t)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Fatal("the connection does not end")
	}
	if _, err := ask(context.Background(), c, "x"); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func TestSilenceEndsTheConnectionAfterTheTimeout(t *testing.T) {
	t.Parallel()
	c, other, _ := connect(t)
	answerer(t, other, func(string) string { return "one\n" }) // and never a dot
	began := time.Now()
	_, err := ask(context.Background(), c, "x")
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took < Timeout || took > patience {
		t.Errorf("after %s: %v", took, err)
	}
	if _, err := ask(context.Background(), c, "y"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the next is told %v", err)
	}
}

func TestASideThatDoesNotEvenReadIsGivenUpToo(t *testing.T) {
	t.Parallel()
	c, _, _ := connect(t)
	if _, err := ask(context.Background(), c, "x"); err == nil || !strings.HasPrefix(err.Error(), "write: ") {
		t.Errorf("got %v", err)
	}
}

func TestAnEarlierEndOfTheCallerCounts(t *testing.T) {
	c, other, _ := connect(t)
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan error, 1)
	go func() {
		_, err := ask(ctx, c, "x")
		asked <- err
	}()
	if _, err := other.Read(make([]byte, 100)); err != nil { // it is asked now
		t.Fatal(err)
	}
	waiting, stop := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer stop()
	if _, err := ask(waiting, c, "y"); !errors.Is(err, context.DeadlineExceeded) || c.Err() != nil {
		t.Errorf("one who waits for their turn is told %v, and the connection %v", err, c.Err())
	}
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the first is told %v", err)
	}
}

func TestAQuestionAfterItsDeadlineHurtsNobody(t *testing.T) {
	c, other, _ := connect(t)
	answerer(t, other, func(line string) string { return line + "\n.\n" })
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ask(over, c, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got, err := ask(context.Background(), c, "y"); err != nil || len(got) != 1 {
		t.Errorf("the next gets %q, %v", got, err)
	}
}

func TestCloseLetsThoseGoWhoWait(t *testing.T) {
	c, other, _ := connect(t)
	asked := make(chan error, 1)
	go func() {
		_, err := ask(context.Background(), c, "x")
		asked <- err
	}()
	if _, err := other.Read(make([]byte, 100)); err != nil { // it is asked now
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-asked; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}
