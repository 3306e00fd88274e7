package version

import (
	"encoding/binary"
	"errors"
)

// ErrBadToken is a token that this cluster did not issue for this key.
var ErrBadToken = errors.New("version: bad token")

// MACKey is the secret that seals tokens; all nodes of a cluster share it.
type MACKey [16]byte

// Token is what a client has seen of a key: the past that its next write
// covers, and the clock reading that the write must exceed.
type Token struct {
	HLC     HLC
	Context Context
	Addends []Addend // of a counter: what the write overwrites of it
}

// ReadToken returns the token of a read. It covers everything that was read and
// not only the version shown: with winner-only contexts the losers would never
// be collapsed.
func (r Record) ReadToken() Token {
	return Token{HLC: r.MaxHLC(), Context: r.Context, Addends: r.Counter.Addends}
}

// Join returns what somebody has seen who has seen both.
func (t Token) Join(o Token) Token {
	return Token{HLC: max(t.HLC, o.HLC), Context: t.Context.Union(o.Context), Addends: joinAddends(t.Addends, o.Addends)}
}

// maxTokenSpans bounds the token of a client that writes on and on beside a
// sibling it has not seen, without ever reading.
const maxTokenSpans = 64

// PutToken returns the token of a write by a client that had seen the context
// given. A delete passes a dot that is not in the record.
//
// Beside live versions that the client has not seen it is what the client had
// seen and its own dot, no more. With those versions in, the client's next write
// would destroy concurrent values that nobody has looked at. With what they have
// replaced in, it would drop the replaced value from replicas that do not have
// the replacement yet: then what was on W disks hangs on those that do.
//
// With no such version, or beyond maxTokenSpans, it is the whole context without
// the live versions unseen, which is a few spans however long the history.
func (r Record) PutToken(me Dot, seen Context) Token {
	t := Token{HLC: r.MaxHLC(), Context: r.Context}
	whole := true
	for i := range r.Versions {
		if d := r.Versions[i].Dot; d != me && !seen.Contains(d) {
			t.Context, whole = t.Context.Without(d), false
		}
	}
	if whole {
		return t
	}
	if r.Context.Contains(me) {
		seen = seen.Add(me)
	}
	if len(seen) <= maxTokenSpans {
		t.Context = seen
	}
	return t
}

// SealToken appends the token in the form handed to clients, bound to its key.
func SealToken(dst, key []byte, t Token, mac MACKey) []byte {
	start := len(dst)
	format := byte(tokenFormat)
	if len(t.Addends) > 0 {
		format = tokenWithAddends
	}
	dst = append(dst, format)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.HLC))
	dst = appendContext(dst, t.Context)
	if len(t.Addends) > 0 {
		dst = appendAddends(dst, t.Addends)
	}
	return binary.BigEndian.AppendUint64(dst, tokenMAC(key, dst[start:], mac))
}

// OpenToken checks and decodes a sealed token. The MAC is checked before
// anything is believed: a forged span reaching past the last counter would
// cover, and so delete, writes that have not happened yet.
func OpenToken(key, tok []byte, mac MACKey) (Token, error) {
	body := len(tok) - macBytes
	if body < 0 || binary.BigEndian.Uint64(tok[body:]) != tokenMAC(key, tok[:body], mac) {
		return Token{}, ErrBadToken
	}
	d := decoder{b: tok[:body]}
	format := d.u8()
	d.check(format == tokenFormat || format == tokenWithAddends)
	t := Token{HLC: HLC(d.u64()), Context: d.context(nil)}
	if format == tokenWithAddends {
		t.Addends = d.addends()
	}
	if !d.done() {
		return Token{}, ErrBadToken
	}
	return t, nil
}

// tokenMAC authenticates key and body; the key's length in front keeps the
// border between them unambiguous.
func tokenMAC(key, body []byte, mac MACKey) uint64 {
	h := newSipHash(mac)
	h.write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	h.write(key)
	h.write(body)
	return h.sum()
}
