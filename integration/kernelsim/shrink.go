package main

// shrink makes a schedule that breaks a promise as small as it gets while it still
// breaks one of the same kind: first decisions are taken out while fates are still drawn,
// then every message whose fate matters is named, and decisions, fates and times are made
// plain by turns until nothing more can be taken out (delta debugging, Zeller and
// Hildebrandt 2002).
func shrink(s *Schedule, b bugs, sh *shared) *Schedule {
	first := play(s, b, sh).failure
	if first == nil {
		return s
	}
	try := func(t *Schedule) bool {
		f := play(t, b, sh).failure
		return f != nil && f.Kind == first.Kind
	}
	t := *s
	t.Decisions = reduce(t.Decisions, func(ds []Decision) bool {
		u := t
		u.Decisions = ds
		return try(&u)
	})
	t = named(&t, b, sh)
	for size := -1; size != len(t.Decisions)+len(t.Fates); {
		size = len(t.Decisions) + len(t.Fates)
		t.Fates = reduce(t.Fates, func(fs []Fate) bool {
			u := t
			u.Fates = fs
			return try(&u)
		})
		t.Decisions = reduce(t.Decisions, func(ds []Decision) bool {
			u := t
			u.Decisions = ds
			return try(&u)
		})
		plainer(&t, try)
	}
	t.End = earlier(t, try)
	return &t
}

// named is the schedule with the fate of each message written down.
func named(s *Schedule, b bugs, sh *shared) Schedule {
	if s.Exact {
		return *s
	}
	w := newWorld(s, b, sh)
	w.record = true
	w.run()
	t := *s
	t.Exact, t.Fates, t.Net = true, w.fates, Net{}
	return t
}

// plainer makes what is left of fates and decisions simpler, one by one: a loss alone,
// a round delay, a short trouble.
func plainer(t *Schedule, try func(*Schedule) bool) {
	for i := range t.Fates {
		was := t.Fates[i]
		for _, f := range []Fate{
			{Cause: was.Cause, N: was.N, Lost: true},
			{Cause: was.Cause, N: was.N, Delay: 20 * ms},
			{Cause: was.Cause, N: was.N, Delay: was.Delay / ms * ms},
			{Cause: was.Cause, N: was.N, Delay: was.Delay},
		} {
			if f == was {
				break
			}
			t.Fates[i] = f
			if try(t) {
				break
			}
			t.Fates[i] = was
		}
	}
	for i := range t.Decisions {
		d := &t.Decisions[i]
		for _, change := range []func(*Decision){
			func(d *Decision) { d.At = d.At / ms * ms },
			func(d *Decision) { d.For = d.For / (100 * ms) * 100 * ms },
			func(d *Decision) { d.For = d.For / ms * ms },
			func(d *Decision) { d.Age = 0 },
			func(d *Decision) { d.Client = 0 },
			func(d *Decision) { d.Key = 0 },
			func(d *Decision) {
				if d.Do == doCart {
					d.Do = doPut
				}
			},
		} {
			was := *d
			if change(d); *d == was {
				continue
			}
			if !try(t) {
				*d = was
			}
		}
	}
}

// earlier is a moment at which trouble can end already.
func earlier(t Schedule, try func(*Schedule) bool) int64 {
	last := int64(0)
	for i := range t.Decisions {
		last = max(last, t.Decisions[i].At)
	}
	for _, end := range []int64{last + ms, last + 100*ms, last + 400*ms} {
		u := t
		if u.End = end; end < t.End && try(&u) {
			return end
		}
	}
	return t.End
}

// reduce takes parts out of a list for as long as what is left still fails.
func reduce[T any](list []T, fails func([]T) bool) []T {
	for parts := 2; len(list) > 0; {
		size := (len(list) + parts - 1) / parts
		took := false
		for at := 0; at < len(list); {
			end := min(at+size, len(list))
			rest := append(append(make([]T, 0, len(list)), list[:at]...), list[end:]...)
			if fails(rest) {
				list, took = rest, true
				continue
			}
			at = end
		}
		switch {
		case took:
			parts = max(parts-1, 2)
		case size == 1:
			return list
		default:
			parts = min(2*parts, len(list))
		}
	}
	return list
}
