package rerun

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrMisfit is a standard library that the edits do not fit: another release of Go,
// for which they have to be looked through again.
var ErrMisfit = errors.New("the installed Go is not the one that the replay tier was written for")

// An edit replaces one piece of text of a file of the standard library, which must be
// there exactly once. Nothing of Go is kept here: the files are read from the installed
// Go, edited, and given to the compiler in their place.
type edit struct {
	file     string // below src
	old, new string
}

// edits make the runtime repeat itself. All of them hang on there being one P and no
// garbage collection, which the runner sees to. In the order of the list:
//
//   - The seed of the process is constant: keys of hashes, names of temporary things.
//   - What a goroutine of a bubble draws (order of maps and of select, ties of
//     timers, math/rand) comes from one generator, seeded by the schedule, and not
//     from that of the thread that it happens to run on. What the runtime draws for
//     its own use (samples, caches, contention of threads) stays aside.
//   - Nobody loses the processor because a time slice of real time is over, or
//     because a system call took long.
//   - The global queue has no turn out of order every 61 turns, which are counted from
//     the start of the process.
//   - Who needs a thread waits a little for one that is about to have no work, before it
//     makes one: new ones take memory, and the order of a map hangs on the addresses of
//     its keys.
//   - The fairness of a Mutex is not judged by real time.
//   - Who waits for a Mutex waits durably: its holder may sleep in virtual time.
//   - A goroutine of a bubble that becomes ready takes a place in the queue that the
//     schedule draws, if the schedule is not 0.
//   - A context cancels its children in the order in which they came, which is that of a
//     map with pointers for keys otherwise.
var edits = []edit{
	{"runtime/rand.go", "\tglobalRand.state.Init(*seed)\n", `	for i := range seed {
		seed[i] = byte(i + 1)
	}
	globalRand.state.Init(*seed)
`},
	{"runtime/rand.go", "func rand() uint64 {\n", `func rand() uint64 {
	if getg().bubble != nil {
		return replayDraw(&replayRandom)
	}
`},
	{"runtime/rand.go", "\t\"internal/runtime/math\"\n", "\t\"internal/runtime/math\"\n\t\"internal/strconv\"\n"},
	{"runtime/rand.go", "func randinit() {\n", `// replayRandom and replayOrder are the states of two generators: of what goroutines
// draw, and of their places in the queue. replayShuffles says that places are drawn.
var (
	replayRandom, replayOrder uint64
	replayShuffles            bool
)

// replayDraw is the next number of a generator (splitmix64).
//
//go:nosplit
func replayDraw(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// replayBelow draws a number below n: from the generator of the bubbles in a bubble.
func replayBelow(n uint32) uint32 {
	if getg().bubble != nil {
		return uint32(replayDraw(&replayRandom) % uint64(n))
	}
	return cheaprandn(n)
}

// replaySchedule seeds both generators from the environment.
func replaySchedule() {
	n, _ := strconv.Atoi(gogetenv("` + scheduleEnv + `"))
	replayRandom = uint64(n)
	replayOrder = ^uint64(n)
	replayShuffles = n != 0
}

// replayPlace lets the goroutine at the end of a queue change places with one that the
// schedule draws. Goroutines outside of bubbles, which come in real time, are not
// counted, nor moved.
func replayPlace(pp *p) {
	h, t := pp.runqhead, pp.runqtail
	n := uint32(len(pp.runq))
	if pp.runq[(t-1)%n].ptr().bubble == nil {
		return
	}
	bubbled := uint64(0)
	for i := h; i != t; i++ {
		if pp.runq[i%n].ptr().bubble != nil {
			bubbled++
		}
	}
	skip := replayDraw(&replayOrder) % bubbled
	for i := h; i != t; i++ {
		if pp.runq[i%n].ptr().bubble == nil {
			continue
		}
		if skip == 0 {
			pp.runq[i%n], pp.runq[(t-1)%n] = pp.runq[(t-1)%n], pp.runq[i%n]
			return
		}
		skip--
	}
}

func randinit() {
`},
	{"runtime/proc.go", "\tif pp.schedtick%61 == 0 && !sched.runq.empty() {\n", "\tif false {\n"},
	{"runtime/proc.go", "\tif !lockheld {\n\t\tlock(&sched.lock)\n\t}\n\tif pp == nil {\n", `	if !lockheld {
		for i := 0; i < 40 && sched.nmidle == 0; i++ {
			usleep(500)
		}
		lock(&sched.lock)
	}
	if pp == nil {
`},
	{"runtime/proc.go", "\tgoenvs()\n", "\tgoenvs()\n\treplaySchedule()\n"},
	{"runtime/proc.go", "func retake(now int64) uint32 {\n", `func retake(now int64) uint32 {
	if now != 0 {
		return 0
	}
`},
	{"runtime/proc.go", "\tif randomizeScheduler && next && randn(2) == 0 {\n", `	if replayShuffles && gp.bubble != nil {
		next = false
	}
	if randomizeScheduler && next && randn(2) == 0 {
`},
	{"runtime/proc.go", `		atomic.StoreRel(&pp.runqtail, t+1) // store-release, makes the item available for consumption
		return
	}
	if runqputslow(pp, gp, h, t) {
`, `		atomic.StoreRel(&pp.runqtail, t+1)
		if replayShuffles {
			replayPlace(pp)
		}
		return
	}
	if runqputslow(pp, gp, h, t) {
`},
	{"runtime/select.go", "\t\tj := cheaprandn(uint32(norder + 1))\n", "\t\tj := replayBelow(uint32(norder + 1))\n"},
	{"runtime/time.go", "\t\t\tt.rand = cheaprand()\n", "\t\t\tt.rand = replayBelow(^uint32(0))\n"},
	{"runtime/sema.go", "func internal_sync_nanotime() int64 {\n", `func internal_sync_nanotime() int64 {
	if getg().bubble != nil {
		return getg().bubble.now
	}
`},
	{"runtime/runtime2.go", "var isIdleInSynctest = [len(waitReasonStrings)]bool{\n", `var isIdleInSynctest = [len(waitReasonStrings)]bool{
	waitReasonSyncMutexLock: true,
	waitReasonSyncRWMutexRLock: true,
	waitReasonSyncRWMutexLock: true,
`},
	{"context/context.go", "\tchildren map[canceler]struct{} // set", `	replayKids []canceler // all that there ever were
	children map[canceler]struct{} // set`},
	{"context/context.go", "\t\t\tp.children[child] = struct{}{}\n", `			p.children[child] = struct{}{}
			p.replayKids = append(p.replayKids, child)
`},
	{"context/context.go", "\tfor child := range c.children {\n", `	for _, child := range c.replayKids {
		if _, ok := c.children[child]; !ok {
			continue
		}
`},
}

// apply edits one file. All edits are of that file.
func apply(file, text string, edits []edit) (string, error) {
	for _, e := range edits {
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%w: %s has %q %d times instead of once", ErrMisfit, file, strings.TrimSpace(e.old), n)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	return text, nil
}

// overlay writes the edited files of the Go at root into dir, and returns the path of
// the list that go build -overlay takes.
func overlay(root, dir string) (string, error) {
	replace := map[string]string{}
	for _, file := range files() {
		from := filepath.Join(root, "src", filepath.FromSlash(file))
		b, err := os.ReadFile(from)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrMisfit, err)
		}
		text, err := apply(file, string(b), editsOf(file))
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[from] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, b, 0o600)
}

// files is which files are edited.
func files() []string {
	var names []string
	for _, e := range edits {
		if !slices.Contains(names, e.file) {
			names = append(names, e.file)
		}
	}
	return names
}

func editsOf(file string) []edit {
	return slices.DeleteFunc(slices.Clone(edits), func(e edit) bool { return e.file != file })
}
