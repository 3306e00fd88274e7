package rdb

import "math"

// lead reads the first byte of a string or length, and the length if it is plain.
func (f *File) lead() (head byte, n uint64, err error) {
	if head, err = f.byte(); err != nil {
		return 0, 0, err
	}
	switch {
	case head < 0x40:
		return head, uint64(head), nil
	case head < 0x80:
		n, err = f.big(1)
		return head, uint64(head&0x3f)<<8 | n, err
	case head == 0x80:
		n, err = f.big(4)
	case head == 0x81:
		n, err = f.big(8)
	case head < number8 || head > packed:
		return 0, 0, f.broken("a length that begins with %#02x", head)
	}
	return head, n, err
}

// length reads a plain length.
func (f *File) length() (uint64, error) {
	head, n, err := f.lead()
	if err == nil && head >= number8 {
		return 0, f.broken("a number where a length is to be")
	}
	return n, err
}

// string reads a string of at most most bytes, and says how long it is. Of a longer one
// no more than the first few bytes are there.
func (f *File) string(most, few int) (s []byte, size uint64, err error) {
	head, n, err := f.lead()
	switch {
	case err != nil:
		return nil, 0, err
	case head == packed:
		return f.packed(most, few)
	case head >= number8:
		width := 1 << (head - number8)
		v, err := f.little(width)
		s = decimal(int64(v<<(64-8*width)) >> (64 - 8*width))
		return s, uint64(len(s)), err
	case n <= uint64(most):
		s, err = f.bytes(n)
		return s, n, err
	}
	if s, err = f.bytes(uint64(few)); err != nil {
		return nil, n, err
	}
	return s, n, f.discard(n - uint64(few))
}

// lzfGain is what a packed byte can stand for, at most: two of a reference are three
// bytes that stand for lzfLongest.
const lzfGain = lzfLongest / 3

// packed reads a packed string. Of one that is too long nothing is there.
func (f *File) packed(most, few int) ([]byte, uint64, error) {
	size, err := f.length()
	if err != nil {
		return nil, 0, err
	}
	whole, err := f.length()
	switch {
	case err != nil:
		return nil, 0, err
	case size > math.MaxInt32 || whole > size*lzfGain:
		return nil, 0, f.broken("%d packed bytes that are to be %d", size, whole)
	case whole > uint64(most):
		return nil, whole, f.discard(size)
	case size > whole+whole/lzfRun+2: // a run of literals costs one byte
		return nil, 0, f.broken("%d packed bytes that are to be only %d", size, whole)
	}
	data, err := f.bytes(size)
	if err != nil {
		return nil, 0, err
	}
	s, ok := lzfUnpack(data, int(whole))
	if !ok {
		return nil, 0, f.broken("packed bytes that do not unpack")
	}
	return s, whole, nil
}

// skip steps over fields: l is a length, s a string, d a score, a digit so many bytes,
// i the id of a stream's entry.
func (f *File) skip(fields string) (err error) {
	for i := 0; i < len(fields) && err == nil; i++ {
		switch c := fields[i]; c {
		case 'l':
			_, err = f.length()
		case 's':
			_, _, err = f.string(0, 0)
		case 'd':
			err = f.skipScore()
		case 'i':
			err = f.discard(16)
		default:
			err = f.discard(uint64(c - '0'))
		}
	}
	return err
}

// skipMany steps over a length and as many times the fields.
func (f *File) skipMany(fields string) error {
	n, err := f.length()
	for ; n > 0 && err == nil; n-- {
		err = f.skip(fields)
	}
	return err
}

// skipScore steps over a number written as text: its length, of which the three highest
// stand for what is no number and for the infinities.
func (f *File) skipScore() error {
	n, err := f.byte()
	if err != nil || n >= 253 {
		return err
	}
	return f.discard(uint64(n))
}

// skipValue steps over a value.
func (f *File) skipValue(kind byte) error {
	switch kind {
	case typeList, typeSet, typeQuicklist:
		return f.skipMany("s")
	case typeZSet:
		return f.skipMany("sd")
	case typeHash:
		return f.skipMany("ss")
	case typeZSet2:
		return f.skipMany("s8")
	case typeQuicklist2:
		return f.skipMany("ls")
	case typeModule:
		return f.broken("a value of a module that does not say how long it is")
	case typeModule2:
		if err := f.skip("l"); err != nil {
			return err
		}
		return f.skipFields()
	case typeStream, typeStream2, typeStream3:
		return f.skipStream(kind)
	}
	return f.skip("s") // one string that holds all
}

// skipFields steps over what a module wrote: fields with their kinds before them.
func (f *File) skipFields() error {
	for {
		kind, err := f.length()
		if err != nil {
			return err
		}
		switch kind {
		case 0:
			return nil
		case 1, 2:
			err = f.skip("l")
		case 3:
			err = f.skip("4")
		case 4:
			err = f.skip("8")
		case 5:
			err = f.skip("s")
		default:
			return f.broken("a field of kind %d in the value of a module", kind)
		}
		if err != nil {
			return err
		}
	}
}

// skipStream steps over the entries, the figures and the groups of a stream.
func (f *File) skipStream(kind byte) error {
	err := f.skipMany("ss")
	if err == nil {
		err = f.skip("lll")
	}
	if err == nil && kind >= typeStream2 {
		err = f.skip("lllll")
	}
	var groups uint64
	if err == nil {
		groups, err = f.length()
	}
	for ; groups > 0 && err == nil; groups-- {
		err = f.skipGroup(kind)
	}
	return err
}

// skipGroup steps over a group of a stream: its entries that are pending, then its
// consumers, each with the ids of those that are its own.
func (f *File) skipGroup(kind byte) error {
	head, consumer := "sll", "s8"
	if kind >= typeStream2 {
		head = "slll"
	}
	if kind >= typeStream3 {
		consumer = "s88"
	}
	err := f.skip(head)
	if err == nil {
		err = f.skipMany("i8l")
	}
	var consumers uint64
	if err == nil {
		consumers, err = f.length()
	}
	for ; consumers > 0 && err == nil; consumers-- {
		if err = f.skip(consumer); err == nil {
			err = f.skipMany("i")
		}
	}
	return err
}

// skipLibrary steps over functions as the release candidates of Redis 7.0 wrote them.
func (f *File) skipLibrary() error {
	if err := f.skip("ss"); err != nil {
		return err
	}
	described, err := f.length()
	if err != nil {
		return err
	}
	if described != 0 {
		err = f.skip("s")
	}
	if err == nil {
		err = f.skip("s")
	}
	return err
}
