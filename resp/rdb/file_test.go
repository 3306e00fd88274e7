package rdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// file makes a whole file of records, with its sum.
func file(records string) []byte {
	out := []byte("REDIS0011" + records + "\xff")
	return binary.LittleEndian.AppendUint64(out, jones(out))
}

// text is a string as it stands in a file.
func text(s string) string { return string(appendString(nil, []byte(s))) }

func number(n int) string { return string(appendLength(nil, n)) }

// entries reads a file to its end.
func entries(in io.Reader, limits Limits) (all []Entry, err error) {
	f, err := Open(in, limits)
	for err == nil {
		var e Entry
		if e, err = f.Next(); err == nil {
			all = append(all, e)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return all, err
}

// oldRecords are values as Redis 7.0 does not write them any more, or never did.
var oldRecords = []struct{ name, record, kind string }{
	{"list", "\x01" + text("k") + number(2) + text("a") + text("-129"), "list"},
	{"set", "\x02" + text("k") + number(1) + text("a"), "set"},
	{"zset with scores as text", "\x03" + text("k") + number(4) + text("a") + "\x031.5" + text("b") + "\xfd" + text("c") + "\xfe" + text("d") + "\xff", "zset"},
	{"hash", "\x04" + text("k") + number(1) + text("f") + text("v"), "hash"},
	{"module", "\x07" + text("k") + "\x81abcdefgh" + "\x01\x05" + "\x02\x06" + "\x03abcd" + "\x04abcdefgh" + "\x05" + text("s") + "\x00", "module"},
	{"zipmap", "\x09" + text("k") + text("\x01\x01f\x01\x00v\xff"), "hash"},
	{"list as ziplist", "\x0a" + text("k") + text("ziplist"), "list"},
	{"zset as ziplist", "\x0c" + text("k") + text("ziplist"), "zset"},
	{"hash as ziplist", "\x0d" + text("k") + text("ziplist"), "hash"},
	{"quicklist", "\x0e" + text("k") + number(2) + text("ziplist") + text(strings.Repeat("z", 100)), "list"},
	{"set as listpack", "\x14" + text("k") + text("listpack"), "set"},
	{"stream of Redis 5", "\x0f" + text("k") + number(1) + text("0123456789abcdef") + text("listpack") + number(1) + number(1) + number(0) +
		number(1) + text("group") + number(1) + number(0) + number(1) + "0123456789abcdef" + "timetime" + number(3) +
		number(1) + text("consumer") + "timetime" + number(1) + "0123456789abcdef", "stream"},
	{"stream of Redis 7.2", "\x15" + text("k") + number(0) + number(0) + number(1) + number(0) + number(0) + number(0) + number(0) + number(0) + number(0) +
		number(1) + text("group") + number(1) + number(0) + number(7) + number(0) +
		number(1) + text("consumer") + "timetime" + "timetime" + number(0), "stream"},
}

func TestAllTypesAreSteppedOver(t *testing.T) {
	for _, c := range oldRecords {
		got, err := entries(bytes.NewReader(file(c.record+"\x00"+text("behind")+text("value"))), Limits{})
		if err != nil || len(got) != 2 || got[0].Type != c.kind || string(got[1].Value) != "value" || got[0].Bytes == 0 {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestRecordsThatAreNoKeysAreSteppedOver(t *testing.T) {
	all := "\xfa" + text("redis-ver") + text("7.2.4") + "\xf7" + "\x81abcdefgh" + "\x02\x01" + "\x05" + text("s") + "\x00" +
		"\xf5" + text("#!lua name=f") + "\xf6" + text("f") + text("LUA") + number(1) + text("what") + text("code") +
		"\xf6" + text("g") + text("LUA") + number(0) + text("code") + "\xf4" + number(1) + number(2) + number(3) +
		"\xfe" + number(3) + "\xfb" + number(1) + number(1)
	in := file(all + "\xfc\x40\x42\x0f\x00\x00\x00\x00\x00\xf8" + number(300) + "\xf9\x07\x00" + text("k") + text("v") +
		"\xfd\x10\x27\x00\x00\x00" + text("l") + text("w") + "\x00" + text("m") + text("x"))
	got, err := entries(bytes.NewReader(in), Limits{})
	want := []Entry{
		{Database: 3, Type: "string", Key: []byte("k"), Value: []byte("v"), Bytes: 1, ExpireAtMS: 1_000_000},
		{Database: 3, Type: "string", Key: []byte("l"), Value: []byte("w"), Bytes: 1, ExpireAtMS: 10_000_000},
		{Database: 3, Type: "string", Key: []byte("m"), Value: []byte("x"), Bytes: 1},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	f, _ := Open(bytes.NewReader(in), Limits{})
	if _, err := f.Next(); err != nil || f.Field("redis-ver") != "7.2.4" {
		t.Errorf("%q, %v", f.Field("redis-ver"), err)
	}
}

func TestWhatIsTooLongIsSteppedOver(t *testing.T) {
	in := file("\x00" + text(strings.Repeat("k", 101)) + text("v") + "\x00" + text(string(noise(200))) + text("v") +
		"\x00" + text("packed") + text(strings.Repeat("v", 1001)) + "\x00" + text("plain") + text(string(noise(1001))) +
		"\x00" + text("fits") + text(strings.Repeat("v", 1000)))
	got, err := entries(bytes.NewReader(in), Limits{Key: 100, Value: 1000})
	if err != nil || len(got) != 5 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, want := range []struct {
		key, value bool
		bytes      int64
	}{{true, false, 1}, {true, false, 1}, {false, true, 1001}, {false, true, 1001}, {false, false, 1000}} {
		e := got[i]
		if e.LongKey != want.key || e.LongValue != want.value || e.Bytes != want.bytes || (e.Value != nil) != (i == 4) {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
}

func TestReadingGoesOnAtAnyPosition(t *testing.T) {
	records := "\xfe" + number(2)
	for i := range 50 {
		records += "\x00" + text(fmt.Sprint("key", i)) + text(strings.Repeat("v", i*7)) + "\x02" + text(fmt.Sprint("set", i)) + number(1) + text("a")
	}
	in := file(records)
	want, err := entries(bytes.NewReader(in), Limits{})
	if err != nil || len(want) != 100 {
		t.Fatal(len(want), err)
	}
	f, _ := Open(iotest.OneByteReader(bytes.NewReader(in)), Limits{})
	for i := range want {
		p := f.Position()
		rest := Resume(bytes.NewReader(in[p.Offset:]), Limits{}, p)
		for j := i; ; j++ {
			e, err := rest.Next()
			if err == io.EOF && j == len(want) {
				break
			}
			if err != nil || fmt.Sprint(e) != fmt.Sprint(want[j]) {
				t.Fatalf("from entry %d, entry %d: %+v, %v", i, j, e, err)
			}
		}
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestADamagedFileIsNoWholeOne cuts a file at every byte, and changes every byte of it.
func TestADamagedFileIsNoWholeOne(t *testing.T) {
	records := "\xfa" + text("redis-ver") + text("7.0.15") + "\xfe\x00\xfb\x10\x01"
	for _, c := range oldRecords {
		records += c.record
	}
	in := file(records + "\xfc\x40\x42\x0f\x00\x00\x00\x00\x00\x00" + text("k") + text(strings.Repeat("ab", 300)))
	if _, err := entries(bytes.NewReader(in), Limits{}); err != nil {
		t.Fatal(err)
	}
	for n := range in {
		if _, err := entries(bytes.NewReader(in[:n]), Limits{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v", n, len(in), err)
		}
		bad := bytes.Clone(in)
		for _, x := range []byte{1, 0x80, 0xff} {
			bad[n] = in[n] ^ x
			if _, err := entries(bytes.NewReader(bad), Limits{}); err == nil {
				t.Errorf("byte %d is %#x, not %#x: no error", n, bad[n], in[n])
			}
		}
	}
}

func TestWhatIsNoFileOfRedisIsSaid(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "ends at byte 0",
		"*3\r\n$3\r\nSET\r\n":                    "does not begin with REDIS",
		"REDIS00x1\xff":                          "version is",
		"REDIS0005\xff":                          "version 5: only versions 6 to 11",
		"REDIS0012\xff":                          "version 12: only versions 6 to 11",
		string(file("\x06" + text("k") + "abc")): "does not say how long",
		string(file("\x08" + text("k") + "abc")): "a record of type 8",
		string(file("\x16" + text("k") + "abc")): "a record of type 22",
		string(file("\x07" + text("k") + "\x01\x09")):                      "field of kind 9",
		string(file("\x01" + text("k") + "\xc0\x09")):                      "a number where a length",
		string(file("\x00\x82")):                                           "a length that begins with",
		string(file("\x00\xc4\x01\x01")):                                   "a length that begins with",
		string(file("\x00" + text("k") + "\xc3\x05\x0c\x00a\xe0\x01\x00")): "do not unpack",
		string(file("")) + "*1\r\n":                                        "append-only file",
		string(file("")[:len(file(""))-1]) + "x":                           "the sum is",
	} {
		if _, err := entries(strings.NewReader(in), Limits{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	if _, err := entries(strings.NewReader("REDIS0009\xff\x00\x00\x00\x00\x00\x00\x00\x00"), Limits{}); err != nil {
		t.Errorf("without a sum: %v", err)
	}
}

// TestLengthsThatLieTakeNoMemory has lengths of what is not there, and packed strings
// that would be large.
func TestLengthsThatLieTakeNoMemory(t *testing.T) {
	const most = 64 << 20
	huge := "\x81\x7f\xff\xff\xff\xff\xff\xff\xff"
	for _, record := range []string{
		"\x00" + huge, "\x00\x01k" + huge, "\x00\x01k\x80\x03\xff\xff\xff", "\x01\x01k" + huge, "\x12\x01k" + huge + "\x01" + huge,
		"\x00\x01k\xc3\x05\x80\x03\xff\xff\xff\x00a\xe0\x01\x00", "\x00\x01k\xc3\x80\x00\xff\xff\xff\x80\x03\xff\xff\xff",
		"\x00\x01k\xc3" + huge + huge, "\x0f\x01k" + huge, "\xfa" + huge, "\x00\xc3\x80\x7f\xff\xff\xff\x80\x00\x00\x00\x05",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := entries(strings.NewReader("REDIS0011"+record), Limits{Value: most}); err == nil {
			t.Errorf("%q: no error", record)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8*bufferBytes {
			t.Errorf("%q: %d bytes", record, n)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, c := range oldRecords {
		f.Add([]byte(c.record))
	}
	f.Fuzz(func(t *testing.T, records []byte) {
		limits := Limits{Key: 100, Value: 1000}
		all, err := entries(io.MultiReader(strings.NewReader("REDIS0011"), bytes.NewReader(records)), limits)
		if err == nil && len(records) < 9 {
			t.Fatal("a file without an end")
		}
		for _, e := range all {
			if len(e.Key) > max(limits.Key, shownKey) || len(e.Value) > limits.Value || e.Bytes < 0 {
				t.Fatalf("%+v", e)
			}
		}
	})
}
