package conformance

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A difference is an answer that is not that of Redis.
type difference struct {
	where string // "one", "three", or "both" for the same in both
	key   string // of the step
	redis string // as shown
	ours  string
}

// wheres are the words for where an answer differs; any is for rules.
var wheres = []string{"both", "one", "three", "any"}

// A reason is one section of the table: why some answers differ, and which.
type reason struct {
	text  []string
	exact []difference
	rules []*rule
}

// A rule lists many differences at once.
type rule struct {
	where, key, redis, ours string
	keys, reds, ourss       *regexp.Regexp
	used                    int
}

// unexplained heads the section of differences that nobody gave a reason for.
const unexplained = "UNEXPLAINED"

// shownBytes is what the table has of a reply; of a longer one it has the
// beginning, the length and a sum.
const shownBytes = 400

func show(reply string) string {
	if len(reply) <= shownBytes {
		return strconv.QuoteToASCII(reply)
	}
	sum := sha256.Sum256([]byte(reply))
	return fmt.Sprintf("%s... %d bytes, sum %x", strconv.QuoteToASCII(reply[:shownBytes]), len(reply), sum[:4])
}

// same compares two replies with the allowances of the step, and returns what is
// left of them. A blank that matches nothing in either is an error: it hides
// nothing, or will hide what nobody thought of.
func (s *step) same(redis, ours string) (r, o string, equal bool, err error) {
	r, o = redis, ours
	for _, re := range s.blanks {
		if !re.MatchString(r) {
			err = errors.Join(err, fmt.Errorf("%s: the blank %s matches nothing in %.300q", s.key, re, r))
		}
		r, o = re.ReplaceAllLiteralString(r, "_"), re.ReplaceAllLiteralString(o, "_")
	}
	if s.near > 0 {
		a, errA := strconv.ParseInt(strings.Trim(r, ":\r\n"), 10, 64)
		b, errB := strconv.ParseInt(strings.Trim(o, ":\r\n"), 10, 64)
		if errA == nil && errB == nil {
			return r, o, max(a-b, b-a) <= s.near, err
		}
	}
	return r, o, r == o, err
}

// compare lists the differences of the two clusters from Redis, in the order of
// the corpus.
func compare(corpus []scenario, redis, one, three map[string]string) (list []difference, err error) {
	for _, sc := range corpus {
		for i := range sc.steps {
			s := &sc.steps[i]
			want, answered := redis[s.key]
			if !answered {
				continue
			}
			r1, o1, same1, err1 := s.same(want, one[s.key])
			r3, o3, same3, _ := s.same(want, three[s.key]) // the error is that of err1
			err = errors.Join(err, err1)
			switch {
			case !same1 && !same3 && o1 == o3:
				list = append(list, difference{"both", s.key, show(r1), show(o1)})
				continue
			}
			if !same1 {
				list = append(list, difference{"one", s.key, show(r1), show(o1)})
			}
			if !same3 {
				list = append(list, difference{"three", s.key, show(r3), show(o3)})
			}
		}
	}
	return list, err
}

// parseTable reads the table of differences. What stands before the first
// section is returned as it is.
func parseTable(text string) (head []string, reasons []*reason, err error) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	var r *reason
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if title, begins := strings.CutPrefix(line, "== "); begins {
			r = &reason{text: []string{title}}
			reasons = append(reasons, r)
			continue
		}
		switch mark, rest, _ := strings.Cut(line, " "); {
		case r == nil:
			head = append(head, line)
		case line == "":
		case mark != "@" && mark != "@~":
			r.text = append(r.text, line)
		case i+2 >= len(lines):
			return nil, nil, fmt.Errorf("line %d: an entry without its replies", i+1)
		default:
			where, key, _ := strings.Cut(rest, " ")
			redis, okRedis := strings.CutPrefix(lines[i+1], "  redis ")
			ours, okOurs := strings.CutPrefix(lines[i+2], "  ours  ")
			if !okRedis || !okOurs || !slices.Contains(wheres, where) {
				return nil, nil, fmt.Errorf("line %d: an entry is where, which step, and two lines with the replies", i+1)
			}
			i += 2
			if mark == "@" {
				r.exact = append(r.exact, difference{where, key, redis, ours})
				continue
			}
			u := &rule{where: where, key: key, redis: redis, ours: ours}
			for re, pattern := range map[**regexp.Regexp]string{&u.keys: key, &u.reds: redis, &u.ourss: ours} {
				if *re, err = regexp.Compile("^(?s:" + pattern + ")$"); err != nil {
					return nil, nil, fmt.Errorf("line %d: %w", i+1, err)
				}
			}
			r.rules = append(r.rules, u)
		}
	}
	return head, reasons, nil
}

func (u *rule) covers(d difference) bool {
	return (u.where == "any" || u.where == d.where) && u.keys.MatchString(d.key) && u.reds.MatchString(d.redis) && u.ourss.MatchString(d.ours)
}

// judge holds the differences found against the table: each must be listed with
// its replies under a reason, and all that is listed must be there.
func judge(reasons []*reason, found []difference) (faults []string) {
	listed := map[difference]bool{}
	for _, r := range reasons {
		if len(r.text) == 0 || strings.HasPrefix(r.text[0], unexplained) || strings.TrimSpace(strings.Join(r.text, "")) == "" {
			faults = append(faults, fmt.Sprintf("%d differences have no reason", len(r.exact)+len(r.rules)))
		}
		if len(r.exact)+len(r.rules) == 0 {
			faults = append(faults, fmt.Sprintf("no difference is left for the reason: %s", strings.Join(r.text, " ")))
		}
		for _, d := range r.exact {
			if _, twice := listed[d]; twice {
				faults = append(faults, fmt.Sprintf("listed twice: %s", d.key))
			}
			listed[d] = false
		}
	}
	for _, d := range found {
		if _, known := listed[d]; known {
			listed[d] = true
		} else if !ruled(reasons, d) {
			faults = append(faults, fmt.Sprintf("not listed: @ %s %s\n  redis %s\n  ours  %s", d.where, d.key, d.redis, d.ours))
		}
	}
	for _, d := range slices.SortedFunc(maps.Keys(listed), func(a, b difference) int { return strings.Compare(a.key+a.where, b.key+b.where) }) {
		if !listed[d] {
			faults = append(faults, fmt.Sprintf("listed, but it is no difference, or another: @ %s %s\n  redis %s\n  ours  %s", d.where, d.key, d.redis, d.ours))
		}
	}
	for _, r := range reasons {
		for _, u := range r.rules {
			if u.used == 0 {
				faults = append(faults, fmt.Sprintf("listed, but there is no such difference: @~ %s %s", u.where, u.key))
			}
		}
	}
	return faults
}

func ruled(reasons []*reason, d difference) bool {
	for _, r := range reasons {
		for _, u := range r.rules {
			if u.covers(d) {
				u.used++
				return true
			}
		}
	}
	return false
}

// revised is the table with what was found: entries keep their reason as long as
// their step differs, and new ones wait for a reason at the end.
func revised(head []string, reasons []*reason, found []difference) string {
	type place struct{ where, key string }
	home := map[place]*reason{}
	for _, r := range reasons {
		for _, d := range r.exact {
			home[place{d.where, d.key}] = r
		}
		r.exact = nil
	}
	fresh := &reason{text: []string{unexplained}}
	for _, r := range reasons {
		if r.text[0] == unexplained {
			fresh = r
		}
	}
	for _, d := range found {
		r := home[place{d.where, d.key}]
		if r == nil {
			if ruled(reasons, d) {
				continue
			}
			r = fresh
		}
		r.exact = append(r.exact, d)
	}
	if !slices.Contains(reasons, fresh) {
		reasons = append(reasons, fresh)
	}
	var b strings.Builder
	b.WriteString(strings.TrimRight(strings.Join(head, "\n"), "\n") + "\n")
	for _, r := range reasons {
		if len(r.exact)+len(r.rules) == 0 {
			continue
		}
		b.WriteString("\n== " + strings.Join(r.text, "\n") + "\n")
		for _, u := range r.rules {
			fmt.Fprintf(&b, "@~ %s %s\n  redis %s\n  ours  %s\n", u.where, u.key, u.redis, u.ours)
		}
		for _, d := range r.exact {
			fmt.Fprintf(&b, "@ %s %s\n  redis %s\n  ours  %s\n", d.where, d.key, d.redis, d.ours)
		}
	}
	return b.String()
}
