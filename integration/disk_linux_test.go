package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// This file damages, fills and fails the real disks of real processes.

// needRoot skips the test without the rights to mount and trace.
func needRoot(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		refuse(t, "it needs root")
	}
	need(t, programs...)
}

// page reads one page of the admin HTTP of p.
func (p *process) page(path string) (status int, body string, err error) {
	resp, err := http.Get("http://" + p.admin + path)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read
	return resp.StatusCode, string(b), err
}

// said reports whether the log of p has a text, from an offset on.
func (p *process) said(text string, from int64) bool {
	b, err := os.ReadFile(p.log.Name())
	return err == nil && bytes.Contains(b[min(int(from), len(b)):], []byte(text))
}

func (p *process) logSize() int64 {
	info, err := p.log.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// newestLog is the file of the engine's log that is written last.
func (p *process) newestLog(t *testing.T) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(p.dir, "store", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log in %s: %v", p.dir, err)
	}
	return slices.Max(logs)
}

func TestAKilledNodeIsNotDoubtedAndADamagedOneIs(t *testing.T) {
	c := startProcesses(t, 3)
	ctx, cl, p := t.Context(), c.client(0), c.nodes[2]
	const keys = 300
	for k := range keys {
		if err := cl.Set(ctx, fmt.Sprintf("k%d", k), "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		c.kill(p)
		c.start(p)
		c.awaitReady(p)
		if _, body, err := p.page("/readyz"); err != nil || body != "ok\n" {
			t.Fatalf("after a kill: %q, %v", body, err)
		}
	}
	for k := range keys {
		if err := cl.Set(ctx, fmt.Sprintf("k%d", k), "w", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	c.kill(p)
	name := p.newestLog(t)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(b, "\x00"))
	if err := os.WriteFile(name, b[:end/2], 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(p)
	c.awaitReady(p)
	if status, body, err := p.page("/readyz"); status != http.StatusOK || !strings.Contains(body, "recovering") {
		t.Errorf("readyz of a node that lost writes: %d %q, %v", status, body, err)
	}
	if _, body, err := p.page("/metrics"); err != nil || !strings.Contains(body, "node_recovering 1") {
		t.Errorf("metrics do not say that it is recovering: %v", err)
	}
	if text := c.client(2).Info(ctx, "redynamo").Val(); !strings.Contains(text, "recovering:true") || !strings.Contains(text, "warning_recovering:") {
		t.Errorf("INFO does not say that it is recovering:\n%s", text)
	}
	await(t, 10*time.Second, "another node shows it as recovering", func() error {
		status, err := cl.Do(ctx, "RING", "STATUS").Result()
		if err != nil || !strings.Contains(fmt.Sprint(status), "recovering") {
			return fmt.Errorf("%v, %w", status, err)
		}
		return nil
	})
	for i := range c.nodes {
		for k := range keys {
			if got, err := c.client(i).Get(ctx, fmt.Sprintf("k%d", k)).Result(); got != "w" {
				t.Fatalf("node %d: k%d = %q, %v", i, k, got, err)
			}
		}
	}
}

// setOnce sets one new key after the other, through all nodes in turn, until stop
// is set, and returns what was acknowledged.
func (c *processes) setOnce(ctx context.Context, id int, stop *atomic.Bool) map[string]string {
	acked := map[string]string{}
	var clients []*redis.Client
	for _, p := range c.nodes {
		cl := redis.NewClient(&redis.Options{Addr: p.plain, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 5 * time.Second})
		defer cl.Close()
		clients = append(clients, cl)
	}
	for n := 0; !stop.Load(); n++ {
		key, value := fmt.Sprintf("once%d:%d", id, n), strconv.Itoa(n)
		if clients[n%len(clients)].Set(ctx, key, value, 0).Err() == nil {
			acked[key] = value
		}
	}
	return acked
}

func TestAnErrorOfFsyncEndsTheNodeAndLosesNothing(t *testing.T) {
	needRoot(t, "strace")
	c := startProcesses(t, 3)
	ctx := t.Context()
	var stop atomic.Bool
	var wg sync.WaitGroup
	logs := make([]map[string]string, 4)
	for i := range logs {
		wg.Go(func() { logs[i] = c.setOnce(ctx, i, &stop) })
	}
	p := c.nodes[1]
	await(t, 10*time.Second, "the load has begun", func() error {
		if info, err := os.Stat(p.newestLog(t)); err != nil || info.Size() == 0 {
			return fmt.Errorf("no log yet: %w", err)
		}
		return nil
	})
	// One error of one call; what follows succeeds, as it does on a real disk.
	tracer := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-p", strconv.Itoa(p.cmd.Process.Pid),
		"-e", "trace=fsync,fdatasync,sync_file_range", "-e", "inject=fdatasync,fsync:error=EIO:when=20")
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = tracer.Process.Signal(syscall.SIGTERM) // it ends with the process it traces
		_ = tracer.Wait()                          // and reports how that one ended
	}()
	var failed time.Time
	await(t, 30*time.Second, "the node notices the error", func() error {
		if !p.said("node cannot go on", 0) {
			return errors.New("nothing in its log")
		}
		failed = time.Now()
		return nil
	})
	select {
	case <-p.waited:
		if took := time.Since(failed); took > 5*time.Second {
			t.Errorf("it took %v to end", took)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the node goes on")
	}
	if code := p.cmd.ProcessState.ExitCode(); code == 0 {
		t.Error("it ended as if nothing had happened")
	}
	stop.Store(true)
	wg.Wait()
	c.start(p)
	c.awaitReady(p)
	if _, body, err := p.page("/readyz"); err != nil || body != "ok\n" {
		t.Errorf("it comes back with %q, %v", body, err)
	}
	acked := 0
	for id, w := range logs {
		acked += len(w)
		for key, want := range w {
			if got, err := c.client(0).Get(ctx, key).Result(); got != want {
				t.Errorf("writer %d: %s = %q, %v; acknowledged %q", id, key, got, err, want)
			}
		}
	}
	if acked < 50 {
		t.Errorf("only %d keys were acknowledged: the load was no load", acked)
	}
}

// onSmallDisk moves the data directory of p to a disk of 64 MiB.
func (c *processes) onSmallDisk(p *process) {
	c.t.Helper()
	c.signal(p, syscall.SIGTERM)
	kept := p.dir + ".kept"
	if err := os.Rename(p.dir, kept); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", p.dir, "tmpfs", 0, "size=64m"); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := syscall.Unmount(p.dir, syscall.MNT_DETACH); err != nil {
			c.t.Error(err)
		}
	})
	run(c.t, nil, "cp", "-a", kept+"/.", p.dir)
	c.start(p)
	c.awaitReady(p)
}

// fillUp writes large values until one is refused, and returns how many were
// not, the refusal, and how long that took.
func fillUp(ctx context.Context, cl *redis.Client, from int) (written int, took time.Duration, err error) {
	value := strings.Repeat("x", 64<<10)
	for k := range 4000 {
		began := time.Now()
		if err := cl.Set(ctx, fmt.Sprintf("big%d", from+k), value, 0).Err(); err != nil {
			return k, time.Since(began), err
		}
	}
	return 4000, 0, nil
}

func TestFullDisksRefuseWritesServeReadsAndRecover(t *testing.T) {
	needRoot(t)
	c := startProcesses(t, 3, "--min-free", "25%")
	ctx := t.Context()
	for i := range c.nodes {
		c.onSmallDisk(c.nodes[i])
	}
	if err := c.client(0).Set(ctx, "small", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}

	// One disk: a stranger's file fills it. Writes go on through every node.
	ballast := filepath.Join(c.nodes[1].dir, "ballast")
	var disk syscall.Statfs_t
	if err := syscall.Statfs(c.nodes[1].dir, &disk); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "fallocate", "-l", strconv.FormatInt(int64(disk.Bavail)*disk.Bsize-8<<20, 10), ballast)
	await(t, 5*time.Second, "readyz tells of the full disk", func() error {
		if status, body, err := c.nodes[1].page("/readyz"); status != http.StatusOK || !strings.Contains(body, "disk almost full") {
			return fmt.Errorf("%d %q %w", status, body, err)
		}
		return nil
	})
	for i := range c.nodes {
		if err := c.client(i).Set(ctx, fmt.Sprintf("one%d", i), "v", 0).Err(); err != nil {
			t.Errorf("one disk full: write through node %d: %v", i, err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	await(t, 10*time.Second, "the node takes writes again", func() error {
		if _, body, err := c.nodes[1].page("/readyz"); err != nil || body != "ok\n" {
			return fmt.Errorf("%q %w", body, err)
		}
		return nil
	})

	// All disks: clients fill them.
	total := 0
	await(t, 60*time.Second, "all nodes refuse clearly", func() error {
		for i := range c.nodes {
			n, took, err := fillUp(ctx, c.client(i), total)
			if total += n; total > 4000 {
				t.Fatalf("%d values of 64 KiB are on a disk of 64 MiB", total)
			}
			if took > 1500*time.Millisecond { // the request timeout, on a slow machine
				t.Errorf("node %d answered after %v: %v", i, took, err)
			}
			if n > 0 || !strings.Contains(fmt.Sprint(err), "disk almost full") {
				return fmt.Errorf("node %d after %d writes: %w", i, n, err)
			}
		}
		return nil
	})
	t.Logf("%d values of 64 KiB were taken", total)
	for i := range c.nodes {
		if _, err := c.client(i).Get(ctx, "big0").Result(); err != nil {
			t.Errorf("read from full disks through node %d: %v", i, err)
		}
	}
	for _, p := range c.nodes {
		if err := syscall.Mount("tmpfs", p.dir, "tmpfs", syscall.MS_REMOUNT, "size=400m"); err != nil {
			t.Fatal(err)
		}
	}
	await(t, 20*time.Second, "all nodes take writes again", func() error {
		for i := range c.nodes {
			if err := c.client(i).Set(ctx, "small", "w", 0).Err(); err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
		}
		return nil
	})
}

// A frozen file system lets nobody go who waits for it, not even at the end of
// the process. The node must be out of the way all the same, and end when it can.
func TestANodeOnAFrozenDiskFencesItself(t *testing.T) {
	needRoot(t, "fsfreeze", "mkfs.ext4", "losetup", "mount")
	c := startProcesses(t, 3, "--disk-stall-limit", "3s")
	ctx, p := t.Context(), c.nodes[2]
	c.signal(p, syscall.SIGTERM)
	image := p.dir + ".img"
	run(t, nil, "fallocate", "-l", "1G", image)
	run(t, nil, "mkfs.ext4", "-q", image)
	if out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput(); err != nil {
		refuse(t, "no loop device: %v %s", err, out)
	} else {
		loop := strings.TrimSpace(string(out))
		t.Cleanup(func() { run(t, nil, "losetup", "-d", loop) })
		kept := p.dir + ".kept"
		if err := errors.Join(os.Rename(p.dir, kept), os.Mkdir(p.dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		run(t, nil, "mount", loop, p.dir)
		t.Cleanup(func() { run(t, nil, "umount", p.dir) })
		run(t, nil, "cp", "-a", kept+"/.", p.dir)
	}
	c.start(p)
	c.awaitReady(p)
	for k := range 50 {
		if err := c.client(2).Set(ctx, fmt.Sprintf("k%d", k), "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}

	from := p.logSize()
	run(t, nil, "fsfreeze", "-f", p.dir)
	frozen := true
	thaw := func() {
		if frozen {
			frozen = false
			run(t, nil, "fsfreeze", "-u", p.dir)
		}
	}
	defer func() {
		thaw()
		<-p.waited // it must let go of the mount
	}()
	await(t, 30*time.Second, "the node notices", func() error {
		if !p.said("disk stands still", from) {
			return errors.New("nothing in its log")
		}
		return nil
	})
	await(t, 15*time.Second, "its doors are closed", func() error {
		if _, _, err := p.page("/healthz"); err == nil {
			return errors.New("the admin HTTP answers")
		}
		if err := c.client(2).Ping(ctx).Err(); err == nil {
			return errors.New("the plain door answers")
		}
		return nil
	})
	for k := range 50 {
		if err := c.client(k%2).Set(ctx, fmt.Sprintf("k%d", k), "w", 0).Err(); err != nil {
			t.Errorf("write through another node: %v", err)
		}
	}
	thaw()
	select {
	case <-p.waited:
	case <-time.After(30 * time.Second):
		t.Fatal("the process goes on after the disk is back")
	}
	if p.cmd.ProcessState.ExitCode() == 0 {
		t.Error("it ended as if nothing had happened")
	}
	c.start(p)
	c.awaitReady(p)
	for k := range 50 {
		if got, err := c.client(2).Get(ctx, fmt.Sprintf("k%d", k)).Result(); got != "w" {
			t.Errorf("k%d = %q, %v", k, got, err)
		}
	}
	c.signal(p, syscall.SIGTERM) // it must let go of the mount
}

// nodeID asks p for its id.
func (c *processes) nodeID(p *process) string {
	c.t.Helper()
	_, rest, ok := strings.Cut(c.client(p.index).Info(c.t.Context(), "redynamo").Val(), "node_id:")
	id, _, _ := strings.Cut(rest, "\r\n")
	if !ok || id == "" {
		c.t.Fatalf("node %d does not say who it is", p.index)
	}
	return id
}

func TestALostAndARestoredDirectoryAsAnOperatorMeetsThem(t *testing.T) {
	c := startProcesses(t, 3)
	ctx, p := t.Context(), c.nodes[2]
	set := func(value string) {
		t.Helper()
		for k := range 50 {
			if err := c.client(k%3).Set(ctx, fmt.Sprintf("k%d", k), value, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	holds := func(value string) {
		t.Helper()
		for k := range 50 {
			if got, err := c.client(2).Get(ctx, fmt.Sprintf("k%d", k)).Result(); got != value {
				t.Errorf("k%d = %q, %v; want %q", k, got, err, value)
			}
		}
	}
	recovering := func(want bool) {
		t.Helper()
		if _, body, err := p.page("/readyz"); err != nil || strings.Contains(body, "recovering") != want {
			t.Errorf("readyz says %q, %v; want recovering: %v", body, err, want)
		}
	}
	set("v1")
	id := c.nodeID(p)

	c.signal(p, syscall.SIGTERM)
	backup := p.dir + ".backup"
	run(t, nil, "cp", "-a", p.dir, backup)
	c.start(p)
	c.awaitReady(p)
	set("v2")
	c.kill(p)
	if err := errors.Join(os.RemoveAll(p.dir), os.Rename(backup, p.dir)); err != nil {
		t.Fatal(err)
	}
	from := p.logSize()
	c.start(p)
	await(t, 30*time.Second, "it talks to the others", func() error {
		if !p.said("a node is up", from) {
			return errors.New("not yet")
		}
		return nil
	})
	await(t, time.Second, "it notices within a second that it is a backup", func() error {
		if !p.said("this data directory lacks", from) {
			return errors.New("nothing in its log")
		}
		return nil
	})
	c.awaitReady(p)
	recovering(true)
	holds("v2")

	c.kill(p)
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	from = p.logSize()
	c.start(p)
	select {
	case <-p.waited:
	case <-time.After(time.Minute):
		t.Fatal("a node with an empty directory is not refused")
	}
	if !p.said("--replace-lost", from) || !p.said(id, from) {
		t.Error("the refusal does not say what to do")
	}
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	args := p.args
	p.args = append(slices.Clone(args), "--replace-lost", id)
	c.start(p)
	c.awaitReady(p)
	if got := c.nodeID(p); got != id {
		t.Errorf("it is node %s, want %s", got, id)
	}
	recovering(true)
	holds("v2")
	set("v3")
	holds("v3")

	c.kill(p)
	p.args = append(slices.Clone(args), "--accept-loss")
	c.start(p)
	c.awaitReady(p)
	recovering(false)
	holds("v3")
}
