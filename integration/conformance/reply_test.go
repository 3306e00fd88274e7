package conformance

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A value is one reply as it came, and its elements if it has any.
type value struct {
	head  string // its first line, or for a string all of its bytes
	pairs bool   // elements are keys and values in turn
	list  []value
}

// readValue reads one reply of either protocol, byte for byte.
func readValue(r *bufio.Reader) (v value, err error) {
	if v.head, err = r.ReadString('\n'); err != nil {
		return v, err
	}
	if len(v.head) < 3 || v.head[len(v.head)-2] != '\r' {
		return v, fmt.Errorf("no line of a reply: %q", v.head)
	}
	kind, text := v.head[0], v.head[1:len(v.head)-2]
	if strings.IndexByte("+-:_,#(", kind) >= 0 {
		return v, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || strings.IndexByte("$!=*~>%|", kind) < 0 {
		return v, fmt.Errorf("no head of a reply: %q", v.head)
	}
	if n < 0 {
		return v, nil
	}
	if strings.IndexByte("$!=", kind) >= 0 {
		body := make([]byte, n+2)
		_, err = io.ReadFull(r, body)
		v.head += string(body)
		return v, err
	}
	if v.pairs = kind == '%' || kind == '|'; v.pairs {
		n *= 2
	}
	for range n {
		e, err := readValue(r)
		if err != nil {
			return v, err
		}
		v.list = append(v.list, e)
	}
	return v, nil
}

func (v value) String() string {
	var b strings.Builder
	v.write(&b)
	return b.String()
}

func (v value) write(b *strings.Builder) {
	b.WriteString(v.head)
	for _, e := range v.list {
		e.write(b)
	}
}

// sorted is v with the elements of every aggregate in one order.
func (v value) sorted() value {
	unit := 1
	if v.pairs {
		unit = 2
	}
	var units []value
	for part := range slices.Chunk(v.list, unit) {
		u := value{}
		for _, e := range part {
			u.list = append(u.list, e.sorted())
		}
		units = append(units, u)
	}
	slices.SortFunc(units, func(a, b value) int { return strings.Compare(a.String(), b.String()) })
	return value{head: v.head, list: units}
}
