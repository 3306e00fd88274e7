package main

import (
	"strings"
	"testing"
)

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "67108864": 64 << 20, "5b": 5, "5B": 5,
		"1k": 1 << 10, "1kb": 1 << 10, "1KiB": 1 << 10,
		"64M": 64 << 20, "64mb": 64 << 20, "64MiB": 64 << 20, " 64MiB ": 64 << 20,
		"3g": 3 << 30, "3GB": 3 << 30, "3GiB": 3 << 30,
		"4611686018427387904": 1 << 62, "4294967296G": 1 << 62,
	} {
		var b byteSize
		if err := b.UnmarshalText([]byte(text)); err != nil || int64(b) != want {
			t.Errorf("%q: %d, %v; want %d", text, b, err, want)
		}
	}
}

func TestWhatIsNoSizeIsRefusedAndChangesNothing(t *testing.T) {
	for _, text := range []string{
		"", " ", "k", "MiB", "-1", "-1k", "1x", "1kk", "1bk", "1ib", "1kbi", "1 MiB", "1.5M", "1e3", "0x10", "1_000", "٣",
		"1T", "4294967297G", "9223372036854775807", "9223372036854775808", "1M1", "１",
	} {
		b := byteSize(7)
		err := b.UnmarshalText([]byte(text))
		if err == nil || b != 7 {
			t.Errorf("%q is read as %d, %v", text, b, err)
		} else if !strings.Contains(err.Error(), "size such as 64MiB") {
			t.Errorf("%q: %v does not say what a size is", text, err)
		}
	}
}

func TestFreeSpaceIsBytesOrAShare(t *testing.T) {
	for text, want := range map[string]freeSpace{
		"0": {bytes: -1}, "1GiB": {bytes: 1 << 30}, "5%": {percent: 5}, " 99% ": {percent: 99},
	} {
		var f freeSpace
		if err := f.UnmarshalText([]byte(text)); err != nil || f != want {
			t.Errorf("%q: %+v, %v; want %+v", text, f, err, want)
		}
	}
	for _, text := range []string{"", "%", "0%", "100%", "-1%", "5 %", "1.5%", "5%%", "x"} {
		if f := (freeSpace{bytes: 7}); f.UnmarshalText([]byte(text)) == nil || f.bytes != 7 {
			t.Errorf("%q is read as %+v", text, f)
		}
	}
}
