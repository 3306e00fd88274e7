package history

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// manyOperations is a history of clients that read, join and write a few hot keys,
// each of them beside a sibling that nobody ever joins.
func manyOperations(n, keys int) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	out := AppendLine(nil, &Op{Kind: Header, Version: Version})
	type state struct {
		live  []Shown
		token string
	}
	all := make([]state, keys)
	for i := range n {
		key, session := rng.IntN(keys), fmt.Sprint("s", rng.IntN(50))
		s := &all[key]
		o := Op{Session: session, Key: fmt.Sprint("cart:", key), Result: OK, BeginUS: int64(10 * i), EndUS: int64(10*i + 5), Node: "127.0.0.1:7001", Next: fmt.Sprint("t", i)}
		switch {
		case i%2 == 0:
			o.Kind, o.Values = VGet, s.live
			s.token = o.Next
		default:
			o.Kind, o.Value, o.Token = VSet, fmt.Sprint("v", i), With(s.token)
			if rng.IntN(5) == 0 {
				o.Token = With("") // a sibling
				s.live = append(s.live[:len(s.live):len(s.live)], Shown{o.Value, fmt.Sprint("A:", i)})
				break
			}
			s.live = []Shown{{o.Value, fmt.Sprint("A:", i)}}
		}
		out = AppendLine(out, &o)
	}
	return out
}

// BenchmarkCheck reads and judges a million operations.
func BenchmarkCheck(b *testing.B) {
	for _, keys := range []int{10, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			text := manyOperations(1_000_000, keys)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Check(bytes.NewReader(text), Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
