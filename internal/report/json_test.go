package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"netvmd/internal/words"
)

func FuzzJSONStaysTheSameValue(f *testing.F) {
	f.Add("Café \x1b[2J \u202e \U000e0001 \\u001b \x00 \" <&>")
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "?")
		var b bytes.Buffer
		if err := WriteJSON(&b, map[string]string{"v": s}, true); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r != '\n' && words.Obeyed(r) {
				t.Errorf("%q has %q in it", b.String(), r)
			}
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back["v"] != s {
			t.Errorf("%q came back as %q (%v)", s, back["v"], err)
		}
	})
}
