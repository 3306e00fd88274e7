// Command redynamo runs a node of a redynamo cluster, or a whole cluster on
// one machine to try it.
//
// Everything a user can set is a flag; each flag has an environment twin
// (REDYNAMO_ and the flag's name in capitals) and a key of the same name in
// the TOML file named by --config. A flag beats the environment, which beats
// the file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is the release that this is, or will be.
const version = "0.1.0"

// cli is the tree of commands; kong reads its tags.
type cli struct {
	Config  kong.ConfigFlag  `help:"Read settings from this TOML file." placeholder:"FILE" type:"path"`
	Version kong.VersionFlag `help:"Print the version and exit." env:"-"`

	Demo   demoCmd   `cmd:"" help:"Run a whole cluster in this process, on loopback."`
	Server serverCmd `cmd:"" help:"Run one node."`
	Health healthCmd `cmd:"" help:"Ask a node whether it is ready; for container health checks."`
	Bench  benchCmd  `cmd:"" help:"Load a server that speaks RESP and print throughput, latency and CPU per operation."`
	Check  checkCmd  `cmd:"" help:"Judge histories of what clients did and saw: exit status 0 is clean, 1 findings, 2 unreadable."`
	Ring   ringCmd   `cmd:"" help:"Show and change the members of a cluster."`
	Import importCmd `cmd:"" help:"Bring the strings of a Redis into a cluster, from an RDB file or from a server that goes on serving."`
}

func main() {
	tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, errUsage) {
		fmt.Fprintln(os.Stderr, "redynamo:", err)
	}
	os.Exit(exitStatus(err))
}

// exitStatus is 2 for what was not understood and 1 for what failed.
func exitStatus(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage), errors.Is(err, errUnreadable):
		return 2
	}
	return 1
}

// errUsage says that the arguments were not understood and that the reason
// has been printed.
var errUsage = errors.New("usage")

// run parses args and runs the command they name until it ends or ctx does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	exited := false
	parser, err := newParser(new(cli), stdout, stderr, func(int) { exited = true })
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if exited { // --help or --version has answered
		return nil
	}
	if err != nil {
		fmt.Fprintf(stderr, "redynamo: %v\nTry 'redynamo --help'.\n", err)
		return errUsage
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(&console{out: stdout, err: stderr})
}

// newParser makes the parser that fills c. exit is called by --help and
// --version, which have then answered.
func newParser(c *cli, stdout, stderr io.Writer, exit func(code int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("redynamo"),
		kong.Description("Amazon's Dynamo with a Redis front door: a leaderless, always-writable, persistent key-value store."),
		kong.DefaultEnvars("REDYNAMO"),
		kong.Configuration(loadTOML),
		kong.Vars{"version": version},
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, Tree: true}),
	)
}

// console is where a command speaks to the person who typed it.
type console struct{ out, err io.Writer }
