package rdb

// LZF is how Redis packs strings: runs of literals and references to what stands up
// to 8 KiB before.
//
//	000nnnnn                     n+1 literal bytes follow
//	lllooooo oooooooo            l+2 bytes (l is 1..6) from o+1 bytes before
//	111ooooo llllllll oooooooo   l+9 bytes from o+1 bytes before
//
// A packer may choose its references freely. This one chooses as that of Redis does,
// so that a DUMP is the same here and there.
const (
	lzfSlots   = 1 << 16
	lzfRun     = 32      // literals at most
	lzfWindow  = 1 << 13 // how far back a reference may go
	lzfLongest = 264     // length of a reference at most
)

// lzfPacker is one value being packed into at most most bytes.
type lzfPacker struct {
	src  []byte
	out  []byte
	most int
	run  int     // literals of the run that is open; its length stands before them
	last []int32 // by hash of three bytes: where they were seen last, 0 for nowhere
}

// lzfPack packs src. It gives up, with nil, when that takes more than most bytes.
func lzfPack(src []byte, most int) []byte {
	if len(src) == 0 || most <= 0 {
		return nil
	}
	p := lzfPacker{src: src, most: most, out: make([]byte, 1, most+lzfRun), last: make([]int32, lzfSlots)}
	at := 0
	for at < len(src)-2 {
		slot := p.slot(at)
		ref := int(p.last[slot])
		p.last[slot] = int32(at)
		if !p.matches(ref, at) {
			if len(p.out) >= most {
				return nil
			}
			p.literal(at)
			at++
			continue
		}
		if !p.endRun() || len(p.out)+4 >= most {
			return nil
		}
		n := p.length(ref, at)
		p.reference(at-ref-1, n-2)
		if at += n; at >= len(src)-2 {
			break
		}
		p.last[p.slot(at-2)] = int32(at - 2)
		p.last[p.slot(at-1)] = int32(at - 1)
	}
	if len(p.out)+3 > most {
		return nil
	}
	for ; at < len(src); at++ {
		p.literal(at)
	}
	p.endRun()
	return p.out
}

func (p *lzfPacker) slot(at int) uint32 {
	h := uint32(p.src[at])<<16 | uint32(p.src[at+1])<<8 | uint32(p.src[at+2])
	return (h>>8 - h*5) % lzfSlots
}

// matches reports whether at may refer to ref. The first byte of a value is never
// referred to, which makes 0 mean nowhere.
func (p *lzfPacker) matches(ref, at int) bool {
	s := p.src
	return ref > 0 && at-ref-1 < lzfWindow && s[ref] == s[at] && s[ref+1] == s[at+1] && s[ref+2] == s[at+2]
}

// length is that of the match. Near the end of the value a match stops two bytes
// early, unless it is one of those that are found by the quick comparison of the
// first sixteen bytes.
func (p *lzfPacker) length(ref, at int) int {
	s, n := p.src, 3
	most := min(len(s)-at-2, lzfLongest)
	if most > 16 {
		for ; n <= 18; n++ {
			if s[ref+n] != s[at+n] {
				return n
			}
		}
	}
	for n < most && s[ref+n] == s[at+n] {
		n++
	}
	return n
}

// literal adds a byte to the open run and begins the next when it is full.
func (p *lzfPacker) literal(at int) {
	p.out = append(p.out, p.src[at])
	if p.run++; p.run == lzfRun {
		p.endRun()
		p.out = append(p.out, 0)
	}
}

// endRun writes the length of the open run before it; of an empty one nothing is
// left. The result is true, so that it can stand in a condition.
func (p *lzfPacker) endRun() bool {
	at := len(p.out) - p.run - 1
	if p.run == 0 {
		p.out = p.out[:at]
	} else {
		p.out[at] = byte(p.run - 1)
	}
	p.run = 0
	return true
}

// reference adds a reference and begins the next run.
func (p *lzfPacker) reference(off, length int) {
	if length < 7 {
		p.out = append(p.out, byte(off>>8|length<<5))
	} else {
		p.out = append(p.out, byte(off>>8|7<<5), byte(length-7))
	}
	p.out = append(p.out, byte(off), 0)
}

// lzfUnpack unpacks into exactly size bytes; it reports whether that is what src
// holds. Requires: size is bounded by the caller.
func lzfUnpack(src []byte, size int) (out []byte, ok bool) {
	out = make([]byte, 0, size)
	for len(src) > 0 {
		head := int(src[0])
		src = src[1:]
		if head < lzfRun {
			n := head + 1
			if n > len(src) || n > size-len(out) {
				return nil, false
			}
			out, src = append(out, src[:n]...), src[n:]
			continue
		}
		n, more := head>>5+2, 1
		if head>>5 == 7 {
			more = 2
		}
		if len(src) < more {
			return nil, false
		}
		if more == 2 {
			n += int(src[0])
		}
		from := len(out) - 1 - (head&31<<8 | int(src[more-1]))
		src = src[more:]
		if from < 0 || n > size-len(out) {
			return nil, false
		}
		for i := range n { // one by one: the reference may reach into itself
			out = append(out, out[from+i])
		}
	}
	return out, len(out) == size
}
