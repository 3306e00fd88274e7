package main

import (
	"fmt"
	"strconv"
	"strings"
)

// byteSize is a number of bytes that people may write as 64MiB, 64mb, 64M or
// 67108864. Units are powers of 1024, as in redis.conf's mb.
type byteSize int64

// UnmarshalText reads the forms above.
func (b *byteSize) UnmarshalText(text []byte) error {
	s := strings.ToLower(strings.TrimSpace(string(text)))
	digits := strings.TrimRight(s, "bikmgt")
	shift, known := map[string]uint{"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30, "gib": 30}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	*b = byteSize(n << shift)
	return nil
}

// freeSpace is a number of bytes, or with % behind it a share of the disk.
// Negative bytes stand for 0, none, since 0 is a default elsewhere.
type freeSpace struct {
	bytes   int64
	percent int
}

// UnmarshalText reads the forms of a byteSize, and 5%.
func (f *freeSpace) UnmarshalText(text []byte) error {
	if digits, ok := strings.CutSuffix(strings.TrimSpace(string(text)), "%"); ok {
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || n > 99 {
			return fmt.Errorf("%q is not a share such as 5%%", text)
		}
		*f = freeSpace{percent: n}
		return nil
	}
	var b byteSize
	if err := b.UnmarshalText(text); err != nil {
		return err
	}
	*f = freeSpace{bytes: int64(b)}
	if b == 0 {
		f.bytes = -1
	}
	return nil
}
