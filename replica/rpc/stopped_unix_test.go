//go:build unix

package rpc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// childEnv makes the test binary a server of its own process.
const childEnv = "REDYNAMO_RPC_CHILD"

// stoppedAge is the age of messages of the child: short, so that the test is.
const stoppedAge = 2 * time.Second

// TestChild is not a test: it is the process that the next one stops. It counts the
// merges it carries out, and a read answers with the number.
func TestChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("it is for another test")
	}
	var merges atomic.Int64
	h := echoHandler()
	h.merge = func(_ MergeRequest, _ Meta, reply func(error)) { merges.Add(1); reply(nil) }
	h.read = func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
		reply(ReadReply{Record: fmt.Append(nil, merges.Load())}, nil)
	}
	server, err := NewServer(ServerConfig{Node: 2, ClusterID: testClusterID, Handler: h, MessageAge: stoppedAge})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
		stop()
	}()
	fmt.Println("addr", ln.Addr())
	if err := server.Serve(ctx, ln); err != nil {
		t.Fatal(err)
	}
}

// child is a server process.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
}

func newChild(t *testing.T) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0], "-test.run=^TestChild$")}
	c.cmd.Env = append(os.Environ(), childEnv+"=1")
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.signal(syscall.SIGCONT)
		_ = in.Close() // it ends by that
		_, _ = io.Copy(io.Discard, out)
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
	})
	for lines := bufio.NewScanner(out); c.addr == "" && lines.Scan(); {
		c.addr, _ = strings.CutPrefix(lines.Text(), "addr ")
	}
	if c.addr == "" {
		t.Fatal("the child does not listen")
	}
	return c
}

// stop returns when the process stands still, which it does not at once.
func (c *child) stop() {
	c.t.Helper()
	c.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		c.t.Fatalf("status %v, %v", status, err)
	}
}

func (c *child) signal(s syscall.Signal) {
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Error(err)
	}
}

// greeted opens a connection to the child.
func (c *child) greeted() net.Conn {
	c.t.Helper()
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() }) // some are closed before
	if _, err := greet(conn, helloTo2(1<<20), time.Now().Add(10*time.Second)); err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// merges asks how many were carried out.
func (c *child) merges() string {
	c.t.Helper()
	conn := c.greeted()
	if _, err := conn.Write(readFrame(1)); err != nil {
		c.t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	r := newFrameReader(conn, terms{protocolMax, 1 << 20})
	if err := r.fill(); err != nil {
		c.t.Fatal(err)
	}
	_, payload, _, err := r.frame()
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := DecodeReadReply(payload)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(m.Record)
}

// TestAStoppedProcessDoesNotCarryOutWhatItFindsInItsSockets stops a real process
// while requests arrive, for longer than they may lie there.
func TestAStoppedProcessDoesNotCarryOutWhatItFindsInItsSockets(t *testing.T) {
	c := newChild(t)
	conn := c.greeted()
	if _, err := conn.Write(mergeFrame(1, "before")); err != nil {
		t.Fatal(err)
	}
	var b [headerBytes]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		t.Fatal(err)
	}
	c.stop()
	for id := range uint64(100) {
		if _, err := conn.Write(mergeFrame(id+2, "meanwhile")); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(agesOf(stoppedAge).silence + 50*time.Millisecond) // this long it stands still
	c.signal(syscall.SIGCONT)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(b[:]); n > 0 || os.IsTimeout(err) {
		t.Errorf("the connection is not closed: %d bytes, %v", n, err)
	}
	if got := c.merges(); got != "1" {
		t.Errorf("%s merges were carried out, want the one from before", got)
	}
}
