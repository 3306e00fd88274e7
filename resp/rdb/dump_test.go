package rdb

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// sealed is a payload with a footer that fits.
func sealed(body string, version uint16) []byte {
	out := binary.LittleEndian.AppendUint16([]byte(body), version)
	return binary.LittleEndian.AppendUint64(out, jones(out))
}

func TestJonesSumIsThatOfRedis(t *testing.T) {
	if got := jones([]byte("123456789")); got != 0xe9c6d914c4b8d9ca {
		t.Errorf("got %x", got)
	}
}

// TestDumpIsThatOfRedis has answers of redis-server 7.0.15.
func TestDumpIsThatOfRedis(t *testing.T) {
	for _, c := range []struct{ value, want string }{
		{"1", "00c0010a002678e7b6d10111fc"},
		{"", "00000a005d9b5c400f7fa2da"},
		{"hello", "000568656c6c6f0a006372df766534200a"},
		{"-129", "00c17fff0a001760822854808480"},
		{"2147483647", "00c2ffffff7f0a002c74e59ee02eada1"},
		{"2147483648", "000a323134373438333634380a00e7b129a34c1d76ee"},
		{"01", "000230310a006cddc441144c7da4"},
		{strings.Repeat("a", 20), "001461616161616161616161616161616161616161610a0083b46b5e1b11acf1"},
		{strings.Repeat("a", 21), "00c30615016161e00a000a00fd0cb36807413f68"},
		{"abcdefghijabcdefghijabcdefghij", "00c30f1e0a6162636465666768696a61e00a090a000f8429dd5e311b97"},
		{strings.Repeat("ab", 300), "00c310425802616261e0ff01e0ff01e03a010161620a003897a9748ed12c00"},
		{"abcdefghijklmnopqrstuvwxyz0123456789abc", "00276162636465666768696a6b6c6d6e6f707172737475767778797a303132333435363738396162630a00fb6e5a81948a58d8"},
	} {
		if got := hex.EncodeToString(Dump([]byte(c.value))); got != c.want {
			t.Errorf("%.40q: %s, want %s", c.value, got, c.want)
		}
	}
}

func TestRestoreReadsWhatDumpWrote(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		value := make([]byte, rnd.IntN(1<<rnd.IntN(16)))
		letters := 1 + rnd.IntN(4)
		for i := range value {
			value[i] = byte('0' + rnd.IntN(letters))
		}
		if rnd.IntN(4) == 0 {
			value = fmt.Append(nil, int64(rnd.Uint64())>>rnd.IntN(64))
		}
		payload := Dump(value)
		got, fault := Restore(payload, 1<<16)
		if fault != nil || !bytes.Equal(got, value) {
			t.Fatalf("seed %d: %.100q became %.100q, %v", seed, value, got, fault)
		}
		payload[rnd.IntN(len(payload))] ^= 1 << rnd.IntN(8)
		if _, fault := Restore(payload, 1<<16); fault != ErrSum {
			t.Fatalf("seed %d: a payload of %.100q with a wrong bit: %v", seed, value, fault)
		}
	}
}

func TestRestoreRefusesWhatIsNoString(t *testing.T) {
	for _, c := range []struct {
		body    string
		version uint16
		want    error
	}{
		{"\x00\x05hello", 11, nil},
		{"\x00\x05hello", 12, ErrSum},
		{"", 10, ErrData},
		{"\x00", 10, ErrData},
		{"\x00\x06hello", 10, ErrData},
		{"\x01\x01\x01a", 10, ErrType},
		{"\x15\x01\x01a", 10, ErrType},
		{"\x08\x01a", 10, ErrData},
		{"\x16\x01a", 10, ErrData},
		{"\x00\xc4\x01", 10, ErrData},
		{"\x00\x82\x01", 10, ErrData},
		{"\x00\xc2\x01", 10, ErrData},
		{"\x00\xc3\x05\x0b\x00a\xe0\x01\x00", 10, nil},
		{"\x00\xc3\x05\x0c\x00a\xe0\x01\x00", 10, ErrData},
	} {
		if _, fault := Restore(sealed(c.body, c.version), 100); fault != c.want {
			t.Errorf("%q: %v, want %v", c.body, fault, c.want)
		}
	}
}

func TestRestoreAllocatesNoMoreThanAValueMayHave(t *testing.T) {
	bomb := sealed("\x00\xc3\x05\x81\x00\x00\x00\xff\xff\xff\xff\xff\x00a\xe0\x01\x00", 10)
	if _, fault := Restore(bomb, 1<<20); fault != ErrTooLong {
		t.Errorf("got %v", fault)
	}
	if n := testing.AllocsPerRun(10, func() { Restore(bomb, 1<<20) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	for size, want := range map[int]error{1000: nil, 999: ErrTooLong} {
		for _, value := range []string{strings.Repeat("x", 1000), string(noise(1000))} {
			if _, fault := Restore(Dump([]byte(value)), size); fault != want {
				t.Errorf("at most %d: %v, want %v", size, fault, want)
			}
		}
	}
	if got, fault := Restore(sealed("\x00\xc2\x00\x00\x00\x80", 10), 4); fault != ErrTooLong {
		t.Errorf("a number of 11 digits: %q, %v", got, fault)
	}
}

// noise cannot be packed.
func noise(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, 1))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(rnd.Uint32())
	}
	return out
}

func TestLZFReferencesMayReachIntoThemselves(t *testing.T) {
	if got, ok := lzfUnpack([]byte("\x00a\xe0\x01\x00"), 11); !ok || string(got) != "aaaaaaaaaaa" {
		t.Errorf("got %q, %t", got, ok)
	}
	for _, bad := range []string{"\x00", "\x20", "\xe0\x00", "\x20\x00", "\x00a\x20\x01", "\x00a\xe0", "\x01a"} {
		if got, ok := lzfUnpack([]byte(bad), 20); ok {
			t.Errorf("%q gave %q", bad, got)
		}
	}
}

func FuzzRestore(f *testing.F) {
	for _, body := range []string{"\x00\x05hello", "\x00\xc0\x01", "\x00\xc2", "\x00\xc3\x05\x0b\x00a\xe0\x01\x00", "\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		const most = 1 << 12
		if value, _ := Restore(body, most); len(value) > most {
			t.Fatalf("%d bytes", len(value))
		}
		value, fault := Restore(sealed(string(body), written), most)
		switch {
		case fault != nil && value != nil:
			t.Fatalf("%v and a value", fault)
		case len(value) > most:
			t.Fatalf("%d bytes", len(value))
		case fault == nil:
			if again, fault := Restore(Dump(value), most); fault != nil || !bytes.Equal(again, value) {
				t.Fatalf("%q became %q, %v", value, again, fault)
			}
		}
	})
}

func FuzzLZF(f *testing.F) {
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaabcabcabcabc"))
	f.Fuzz(func(t *testing.T, value []byte) {
		packed := lzfPack(value, len(value)-packGain)
		if len(packed) > max(0, len(value)-packGain) {
			t.Fatalf("%d bytes became %d", len(value), len(packed))
		}
		if packed == nil {
			return
		}
		if back, ok := lzfUnpack(packed, len(value)); !ok || !bytes.Equal(back, value) {
			t.Fatalf("%q became %q", value, back)
		}
	})
}
