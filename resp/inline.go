package resp

// splitInline splits an inline command into words as Redis does: words are
// separated by white space and may be quoted; "..." knows \n \r \t \b \a \xHH and
// backslash before any other byte, '...' only \'. A closing quote must end the
// word. It reports whether the quotes balance. The words are copies.
func splitInline(line []byte) (words [][]byte, ok bool) {
	for i, c := range line {
		if c == 0 { // Redis sees a C string
			line = line[:i]
			break
		}
	}
	for {
		for len(line) > 0 && isSpace(line[0]) {
			line = line[1:]
		}
		if len(line) == 0 {
			return words, true
		}
		word, n, ok := inlineWord(line)
		if !ok {
			return nil, false
		}
		words = append(words, word)
		line = line[n:]
	}
}

// inlineWord reads one word and says how many bytes it took.
func inlineWord(line []byte) (word []byte, n int, ok bool) {
	word = make([]byte, 0, min(len(line), 32))
	for n < len(line) {
		c := line[n]
		switch {
		case c == '"' || c == '\'':
			var size int
			word, size, ok = inlineQuoted(word, line[n:])
			n += size
			if !ok || (n < len(line) && !isSpace(line[n])) {
				return nil, 0, false
			}
			return word, n, true
		case isSpace(c) && c != '\v' && c != '\f': // Redis ends no word at these two
			return word, n, true
		}
		word = append(word, c)
		n++
	}
	return word, n, true
}

// inlineQuoted reads a quoted string; line begins with the quote.
func inlineQuoted(word, line []byte) (_ []byte, n int, ok bool) {
	quote := line[0]
	for n = 1; n < len(line); n++ {
		c := line[n]
		rest := line[n+1:]
		switch {
		case c == quote:
			return word, n + 1, true
		case c != '\\' || len(rest) == 0:
		case quote == '\'':
			if rest[0] == '\'' {
				c, n = '\'', n+1
			}
		case len(rest) >= 3 && rest[0] == 'x' && isHex(rest[1]) && isHex(rest[2]):
			c, n = hexDigit(rest[1])<<4|hexDigit(rest[2]), n+3
		default:
			c, n = unescape(rest[0]), n+1
		}
		word = append(word, c)
	}
	return nil, n, false
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func isSpace(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') }

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexDigit(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// equalFold compares a word of the client with a lower-case name.
func equalFold(word []byte, name string) bool {
	if len(word) != len(name) {
		return false
	}
	for i, c := range word {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
