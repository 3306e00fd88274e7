package migrate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rdbLength is a length as it stands in an RDB file, of four bytes.
func rdbLength(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0x80}, uint32(n)) }

// packedZeros is a string of zeros as it stands in an RDB file, 88 times as short.
func packedZeros(n int) []byte {
	out, left := []byte{0, 0}, n-1
	for ; left >= 264; left -= 264 {
		out = append(out, 0xe0, 255, 0) // 264 bytes as the one before
	}
	for ; left > 0; left-- {
		out = append(out, 0, 0)
	}
	head := append([]byte{0xc3}, rdbLength(len(out))...)
	return append(append(head, rdbLength(n)...), out...)
}

// hostile is a small file of keys that are long: sets, and strings.
func hostile(t *testing.T) string {
	var b bytes.Buffer
	b.WriteString("REDIS0010\xfe\x00")
	key := packedZeros(64 << 10)
	for range 3 * pageSeen {
		b.Write(append(append([]byte{2}, key...), "\x01\x01a"...))
	}
	for range 2 * pageKeys {
		b.Write(append(append([]byte{0}, key...), "\x01a"...))
	}
	b.WriteString("\xff\x00\x00\x00\x00\x00\x00\x00\x00")
	path := filepath.Join(t.TempDir(), "hostile.rdb")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPagesAreBoundedWhateverTheKeys reads keys that take more than their values.
func TestPagesAreBoundedWhateverTheKeys(t *testing.T) {
	from, to := startServer(t), startServer(t)
	for i := range 200 {
		key := fmt.Sprint(i, strings.Repeat("\x00", 64<<10-3))
		from.do(t, "SET", key, "a")
		from.do(t, "SADD", "set"+key, "a")
	}
	for way, cfg := range ways(t, from, to) {
		if way == "file" {
			cfg.File = hostile(t)
		}
		cfg, err := cfg.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		var src source
		if way == "file" {
			src, err = openFile(&cfg, nil)
		} else {
			src, err = openLive(t.Context(), &cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
		items, lines := 0, 0
		for {
			p, err := src.next(t.Context())
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			size := len(p.mu.lines)
			for _, it := range p.items {
				size += len(it.key) + len(it.value)
			}
			if size >= pageBytes+64<<10+1<<20 {
				t.Fatalf("%s: a page of %d bytes", way, size)
			}
			items += len(p.items)
			for line := range bytes.Lines(p.mu.lines) {
				if lines++; len(line) > 4*shownKey+100 || !bytes.Contains(line, []byte("... (655")) {
					t.Fatalf("%s: a line of %d bytes: %s", way, len(line), line)
				}
			}
		}
		if items < 200 || lines < 200 {
			t.Errorf("%s: %d items, %d lines", way, items, lines)
		}
		if err := src.close(); err != nil {
			t.Error(err)
		}
	}
}
