package desktop

import (
	"context"
	"fmt"
	"image/png"
	"os"
	"testing"
	"time"

	"netvmd/internal/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestScratch(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []Kind{Trayer, Tint2} {
		began := time.Now()
		d, err := New(ctx, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Log("desktop", time.Since(began))
		p, err := d.StartPanel(ctx, kind, 22)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("panel", time.Since(began))
		prog, err := d.Start(ctx, nil, "/tmp/spike/spike", "/tmp/spike/icon.png")
		if err != nil {
			t.Fatal(err)
		}
		w, err := d.Screen.AwaitIcon(ctx, 22)
		t.Log("icon", w, err, time.Since(began))
		m, err := d.OpenMenu(ctx, w)
		t.Log(m, err, time.Since(began))
		if err == nil {
			pic, err := d.Screen.Settled(ctx, m.Place)
			t.Log(err)
			words, err := d.Read(ctx, pic)
			t.Log(words, err)
			f, _ := os.Create("/tmp/spike/" + string(kind) + "-menu.png")
			png.Encode(f, pic)
			f.Close()
		}
		words, err := d.Menu(ctx)
		t.Log("\n"+words.String(), err, time.Since(began))
		t.Log(d.Choose(ctx, "First item"))
		t.Log(d.CloseMenu(ctx))
		t.Log(d.Screen.Resources(prog.PID()))
		t.Log("\n", prog.Log(), time.Since(began))
		t.Log(p.Stop(ctx))
		for _, slot := range []int{24, 32, 48} {
			p, err := d.StartPanel(ctx, kind, slot)
			if err != nil {
				t.Fatal(err)
			}
			w, err := d.Screen.AwaitIcon(ctx, slot)
			t.Log("icon", w, err, time.Since(began))
			t.Log(p.Stop(ctx))
		}
		d.Close()
	}
}
