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
}

// ReadToken returns the token of a read. It covers everything that was read and
// not only the version shown: with winner-only contexts the losers would never
// be collapsed.
func (r Record) ReadToken() Token { return Token{HLC: r.MaxHLC(), Context: r.Context} }

// PutToken returns the token of a write: the whole context without the live
// versions that its client has not seen, which are those that are neither me
// nor in seen. With them in, the client's next write would destroy concurrent
// values that nobody has looked at. A delete passes the zero Dot.
func (r Record) PutToken(me Dot, seen Context) Token {
	t := Token{HLC: r.MaxHLC(), Context: r.Context}
	for i := range r.Versions {
		if d := r.Versions[i].Dot; d != me && !seen.Contains(d) {
			t.Context = t.Context.Without(d)
		}
	}
	return t
}

// SealToken appends the token in the form handed to clients, bound to its key.
func SealToken(dst, key []byte, t Token, mac MACKey) []byte {
	start := len(dst)
	dst = append(dst, tokenFormat)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.HLC))
	dst = appendContext(dst, t.Context)
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
	d.format(tokenFormat)
	t := Token{HLC: HLC(d.u64()), Context: d.context(nil)}
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
