package rdb

import (
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"math"
	"strconv"
	"time"
)

// Versions of files that are read: those of Redis 2.6 to 7.2. Later ones have types that
// this package could not step over.
const (
	OldestFile = 6
	NewestFile = 11
)

// The records of a file that are no values.
const (
	opSlot      = 244
	opLibrary   = 245
	opLibraryRC = 246
	opModule    = 247
	opIdle      = 248
	opFrequency = 249
	opField     = 250
	opSizes     = 251
	opExpiryMS  = 252
	opExpiry    = 253
	opDatabase  = 254
	opEnd       = 255
)

// ErrFile is what is wrong with a file as such; the text says where.
var ErrFile = errors.New("not a file of Redis, or damaged")

// Limits bound what is held in memory of one record. Zero = default.
type Limits struct {
	Key   int // longer keys are stepped over; 64 KiB
	Value int // longer strings are stepped over; 1 MiB
}

// A Position is a boundary between two keys of a file, from which reading can go on.
type Position struct {
	Version  int    // of the file
	Offset   int64  // in the file
	Database uint64 // that is selected there
	Sum      uint64 // of what stands before
}

// An Entry is one key of a file.
type Entry struct {
	Database   uint64
	Type       string // as TYPE says it
	Key        []byte // cut to Limits.Key if it is longer
	Value      []byte // of a string
	Bytes      int64  // of a string its length, of others what the value takes in the file
	ExpireAtMS int64  // 0: never
	LongKey    bool   // the key is longer than Limits.Key; there is no value then
	LongValue  bool   // the string is longer than Limits.Value, and not here
}

// A File reads the keys of a file in order.
type File struct {
	in      io.Reader
	limits  Limits
	version int

	buf     []byte // [at:end] are still to be read
	at, end int
	summed  int    // buf[:summed] is in sum
	sum     uint64 // of what stands before it, as Redis has it
	base    int64  // offset of buf[0]

	database uint64
	fields   map[string]string
}

// bufferBytes is what is read from the source at once.
const bufferBytes = 256 << 10

func newFile(in io.Reader, limits Limits) *File {
	if limits.Key == 0 {
		limits.Key = 64 << 10
	}
	if limits.Value == 0 {
		limits.Value = 1 << 20
	}
	return &File{in: in, limits: limits, buf: make([]byte, bufferBytes), fields: map[string]string{}}
}

// Open begins with the first byte of a file.
func Open(in io.Reader, limits Limits) (*File, error) {
	f := newFile(in, limits)
	head, err := f.bytes(9)
	if err != nil {
		return nil, err
	}
	if string(head[:5]) != "REDIS" {
		return nil, f.broken("it does not begin with REDIS")
	}
	version, err := strconv.Atoi(string(head[5:]))
	switch {
	case err != nil:
		return nil, f.broken("its version is %q", head[5:])
	case version < OldestFile || version > NewestFile:
		return nil, fmt.Errorf("rdb: version %d: only versions %d to %d can be read", version, OldestFile, NewestFile)
	}
	f.version = version
	return f, nil
}

// Resume goes on at a position. Requires: in begins there.
func Resume(in io.Reader, limits Limits, p Position) *File {
	f := newFile(in, limits)
	f.version, f.base, f.database, f.sum = p.Version, p.Offset, p.Database, p.Sum
	return f
}

// Position is where the next key begins. Requires: nothing is being read.
func (f *File) Position() Position {
	f.add()
	return Position{Version: f.version, Offset: f.offset(), Database: f.database, Sum: f.sum}
}

// Field is what the file says of itself under a name, such as redis-ver.
func (f *File) Field(name string) string { return f.fields[name] }

func (f *File) offset() int64 { return f.base + int64(f.at) }

// Next is the next key; io.EOF after the last, when the sum of the file was right.
func (f *File) Next() (Entry, error) {
	var e Entry
	for {
		op, err := f.byte()
		if err != nil {
			return e, err
		}
		switch {
		case op == opEnd:
			return e, f.finish()
		case op >= opSlot:
			err = f.record(op, &e)
		default:
			e.Database = f.database
			return e, f.entry(op, &e)
		}
		if err != nil {
			return e, err
		}
	}
}

// record takes what is no value, of the key to come or of the file.
func (f *File) record(op byte, e *Entry) error {
	switch op {
	case opExpiryMS:
		n, err := f.little(8)
		e.ExpireAtMS = int64(n)
		return err
	case opExpiry:
		n, err := f.little(4)
		e.ExpireAtMS = int64(int32(n)) * int64(time.Second/time.Millisecond)
		return err
	case opDatabase:
		n, err := f.length()
		f.database = n
		return err
	case opField:
		return f.field()
	case opModule:
		if err := f.skip("lll"); err != nil {
			return err
		}
		return f.skipFields()
	case opLibraryRC:
		return f.skipLibrary()
	}
	return f.skip(map[byte]string{opSlot: "lll", opLibrary: "s", opIdle: "l", opFrequency: "1", opSizes: "ll"}[op])
}

// fieldBytes is the longest name or text of a field that is kept.
const fieldBytes = 256

func (f *File) field() error {
	name, _, err := f.string(fieldBytes, fieldBytes)
	if err != nil {
		return err
	}
	text, _, err := f.string(fieldBytes, fieldBytes)
	if err == nil && len(f.fields) < fieldBytes {
		f.fields[string(name)] = string(text)
	}
	return err
}

// entry reads a key and its value.
func (f *File) entry(kind byte, e *Entry) error {
	e.Type = TypeName(kind)
	if int(kind) >= len(typeNames) || typeNames[kind] == "" {
		f.at--
		return f.broken("a record of type %d", kind)
	}
	key, n, err := f.string(f.limits.Key, shownKey)
	if err != nil {
		return err
	}
	e.Key, e.LongKey = key, n > uint64(f.limits.Key)
	begin := f.offset()
	if kind != typeString {
		err = f.skipValue(kind)
		e.Bytes = f.offset() - begin
		return err
	}
	most := f.limits.Value
	if e.LongKey {
		most = 0
	}
	value, n, err := f.string(most, 0)
	e.Bytes = int64(min(n, math.MaxInt64))
	if e.LongValue = n > uint64(f.limits.Value); !e.LongKey && !e.LongValue {
		e.Value = value
	}
	return err
}

// shownKey is how much is kept of a key that is too long.
const shownKey = 128

// finish checks the sum at the end, and that it is the end: an append-only file begins
// as one of these, and goes on with what was written since.
func (f *File) finish() error {
	f.add()
	want := f.sum
	foot, err := f.little(8)
	switch {
	case err != nil:
		return err
	case foot != 0 && foot != want:
		return f.broken("the sum is %016x, and that of the bytes %016x: what was read may be wrong", foot, want)
	}
	if _, err := f.byte(); err == nil {
		return f.broken("more behind the end: is it an append-only file?")
	} else if !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return io.EOF
}

// broken is an ErrFile that says where.
func (f *File) broken(format string, args ...any) error {
	return fmt.Errorf("rdb: at byte %d: %s: %w", f.offset(), fmt.Sprintf(format, args...), ErrFile)
}

// add takes what was read into the sum.
func (f *File) add() {
	f.sum = ^crc64.Update(^f.sum, jonesTable, f.buf[f.summed:f.at])
	f.summed = f.at
}

// fill reads on when the buffer is used up.
func (f *File) fill() error {
	f.add()
	f.base += int64(f.at)
	f.at, f.end, f.summed = 0, 0, 0
	for range 100 { // a reader may answer nothing, but not for ever
		n, err := f.in.Read(f.buf)
		switch {
		case n > 0:
			f.end = n
			return nil
		case err == io.EOF:
			return fmt.Errorf("rdb: the file ends at byte %d, in the middle: %w", f.base, io.ErrUnexpectedEOF)
		case err != nil:
			return fmt.Errorf("rdb: read at byte %d: %w", f.base, err)
		}
	}
	return fmt.Errorf("rdb: read at byte %d: %w", f.base, io.ErrNoProgress)
}

func (f *File) byte() (byte, error) {
	if f.at == f.end {
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	f.at++
	return f.buf[f.at-1], nil
}

// bytes reads n bytes into memory that grows as they come.
func (f *File) bytes(n uint64) ([]byte, error) {
	out := make([]byte, 0, min(n, bufferBytes))
	for uint64(len(out)) < n {
		if f.at == f.end {
			if err := f.fill(); err != nil {
				return nil, err
			}
		}
		take := min(uint64(f.end-f.at), n-uint64(len(out)))
		out = append(out, f.buf[f.at:f.at+int(take)]...)
		f.at += int(take)
	}
	return out, nil
}

// discard steps over n bytes.
func (f *File) discard(n uint64) error {
	for n > 0 {
		if f.at == f.end {
			if err := f.fill(); err != nil {
				return err
			}
		}
		take := min(uint64(f.end-f.at), n)
		f.at += int(take)
		n -= take
	}
	return nil
}

func (f *File) little(n int) (v uint64, err error) {
	for i := range n {
		b, err := f.byte()
		if err != nil {
			return 0, err
		}
		v |= uint64(b) << (8 * i)
	}
	return v, nil
}

func (f *File) big(n int) (v uint64, err error) {
	for range n {
		b, err := f.byte()
		if err != nil {
			return 0, err
		}
		v = v<<8 | uint64(b)
	}
	return v, nil
}
