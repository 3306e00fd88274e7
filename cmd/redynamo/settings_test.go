package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// parse reads args as the program does and runs nothing. A file that is not
// empty is the settings file.
func parse(t *testing.T, file string, args ...string) (*cli, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "redynamo.toml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", path}, args...)
	}
	c := new(cli)
	parser, err := newParser(c, io.Discard, io.Discard, func(code int) { t.Errorf("%q exits with %d", args, code) })
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return c, err
}

func mustParse(t *testing.T, file string, args ...string) *cli {
	t.Helper()
	c, err := parse(t, file, args...)
	if err != nil {
		t.Fatalf("%q with %q: %v", args, file, err)
	}
	return c
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	const file = "max-value = '3MiB'\nhint-budget = '3GiB'\nrequest-timeout = '3s'\nr = 3\nw = 3\nn = 5\n"
	t.Setenv("REDYNAMO_MAX_VALUE", "2MiB")
	t.Setenv("REDYNAMO_REQUEST_TIMEOUT", "2s")
	t.Setenv("REDYNAMO_W", "1")
	s := mustParse(t, file, "server", "--data-dir", "d", "--max-value", "1MiB").Server
	if s.MaxValue != 1<<20 {
		t.Errorf("max-value %d: the flag does not win", s.MaxValue)
	}
	if s.RequestTimeout != 2*time.Second || s.W != 1 {
		t.Errorf("request-timeout %v, w %d: the environment does not win", s.RequestTimeout, s.W)
	}
	if s.R != 3 || s.N != 5 {
		t.Errorf("r %d, n %d: the file does not win", s.R, s.N)
	}
	if cfg, err := s.config(); err != nil || cfg.HintBudget != 3<<30 {
		t.Errorf("hint-budget %d, %v: the file does not reach the node", cfg.HintBudget, err)
	}
	if s.Units != 1024 {
		t.Errorf("units %d, want the default", s.Units)
	}
}

func TestEveryFlagHasAnEnvironmentTwinOfItsName(t *testing.T) {
	parser, err := newParser(new(cli), io.Discard, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	nodes := append(slices.Clone(parser.Model.Children), parser.Model.Node)
	for _, n := range nodes {
		for _, flag := range n.Flags {
			want := []string{"REDYNAMO_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))}
			if flag.Name == "help" || flag.Name == "version" {
				want = nil // questions, not settings
			}
			if !slices.Equal(flag.Envs, want) {
				t.Errorf("%s --%s has the twins %q, want %q", n.Name, flag.Name, flag.Envs, want)
			}
		}
	}
}

func TestTheSettingsFileMayBeNamedInTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "redynamo.toml")
	if err := os.WriteFile(path, []byte("zone = 'a'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REDYNAMO_CONFIG", path)
	if s := mustParse(t, "", "server", "--data-dir", "d").Server; s.Zone != "a" {
		t.Errorf("zone %q, want the file's", s.Zone)
	}
}

func TestTableOfACommandBeatsTheTopLevel(t *testing.T) {
	const file = "log-level = 'error'\nn = 4\n[server]\nlog-level = 'debug'\ndata-dir = '/s'\n[demo]\nlog-level = 'info'\n"
	server, demo := mustParse(t, file, "server").Server, mustParse(t, file, "demo").Demo
	if server.LogLevel != "debug" || demo.LogLevel != "info" {
		t.Errorf("log-level of the server %q, of the demo %q: want debug and info", server.LogLevel, demo.LogLevel)
	}
	if server.DataDir != "/s" || demo.DataDir != "" {
		t.Errorf("data-dir of the server %q, of the demo %q: want the server's alone", server.DataDir, demo.DataDir)
	}
	if server.N != 4 || demo.N != 4 {
		t.Errorf("n of the server %d, of the demo %d: want the top level's", server.N, demo.N)
	}
}

func TestUnknownKeysOfTheFileAreNamed(t *testing.T) {
	for file, want := range map[string]string{
		"listne = ':1'\n":                   "listne",
		"[server]\nlistne = ':1'\n":         "server.listne",
		"[server]\nnodes = 3\n":             "server.nodes", // the demo's
		"[serve]\nlisten = ':1'\n":          "serve",
		"server = 1\n":                      "server",
		"[listen]\nport = 1\n":              "listen",
		"zeta = 1\nr = 2\nalpha = 1\n":      "alpha, zeta",
		"config = 'other.toml'\n":           "config",
		"version = true\n":                  "version",
		"[server]\nhelp = true\nnosuch=1\n": "server.help, server.nosuch",
		"[server.log]\nlevel = 'debug'\n":   "server.log",
	} {
		_, err := parse(t, file, "server", "--data-dir", "d")
		if err == nil || !strings.HasSuffix(err.Error(), "unknown keys: "+want) {
			t.Errorf("%q: %v, want the keys %s named", file, err, want)
		}
	}
}

func TestUnreadableFilesAreErrors(t *testing.T) {
	for file, want := range map[string]string{
		"r = \n":           "settings file: ",
		"r = 'many'\n":     "--r",
		"r = [1, 2]\n":     "--r",
		"auto-join = 5\n":  "--auto-join",
		"fsync = 'never'":  "--fsync",
		"max-value = '1x'": "--max-value",
	} {
		if _, err := parse(t, file, "server", "--data-dir", "d"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error about %q", file, err, want)
		}
	}
	if _, err := parse(t, "", "--config", "/nonexistent/redynamo.toml", "server", "--data-dir", "d"); err == nil {
		t.Error("a file that is not there is no error")
	}
}

func TestListsAndOtherValuesOfTheFile(t *testing.T) {
	s := mustParse(t, `
join = ["n1:7946", "n2:7946"]
auto-join = false
max-clients = 7
notify-keyspace-events = "KEA"
max-value = 2048
fsync = "interval"
fsync-interval = "250ms"
requirepass = "a,b c"
data-dir = "/d"
`, "server").Server
	if want := []string{"n1:7946", "n2:7946"}; !slices.Equal(s.Join, want) {
		t.Errorf("join %q, want %q", s.Join, want)
	}
	if s.AutoJoin || s.MaxClients != 7 || s.KeyEvents != "KEA" || s.MaxValue != 2048 || s.Fsync != "interval" || s.FsyncInterval != 250*time.Millisecond {
		t.Errorf("other values arrived as %+v", s)
	}
	if s.RequirePass != "a,b c" {
		t.Errorf("requirepass %q: a string is split", s.RequirePass)
	}
	b := mustParse(t, "pipeline = [1, 8]\nop = ['get']\n", "bench").Bench
	if !slices.Equal(b.Pipeline, []int{1, 8}) || !slices.Equal(b.Op, []string{"get"}) {
		t.Errorf("pipeline %v, op %q", b.Pipeline, b.Op)
	}
	if s := mustParse(t, "admin-listen = '-'\n", "server", "--data-dir", "d").Server; s.AdminListen != "-" {
		t.Errorf("admin-listen %q, want none", s.AdminListen)
	}
	if s := mustParse(t, "", "server", "--data-dir", "d", "--admin-listen", "-").Server; s.AdminListen != "-" {
		t.Errorf("admin-listen %q, want none", s.AdminListen)
	}
	if s := mustParse(t, "join = []\n", "server", "--data-dir", "d").Server; len(s.Join) != 0 {
		t.Errorf("an empty list arrived as %q", s.Join)
	}
}

func TestAccessIsProtectedUnlessItIsSaidOtherwise(t *testing.T) {
	for _, c := range []struct {
		file string
		args []string
		want bool
	}{
		{"", nil, true},
		{"", []string{"--protected-mode=no"}, false},
		{"", []string{"--no-protected-mode"}, false},
		{"protected-mode = false\naclfile = '/a'\n", nil, false},
		{"[server]\nprotected-mode = 'no'\naclfile = '/a'\n", []string{"--protected-mode"}, true},
	} {
		s := mustParse(t, c.file, append([]string{"server", "--data-dir", "d"}, c.args...)...).Server
		if s.ProtectedMode != c.want || (s.ACLFile == "/a") != (c.file != "") {
			t.Errorf("%q %v: protected %v, aclfile %q", c.file, c.args, s.ProtectedMode, s.ACLFile)
		}
	}
	t.Setenv("REDYNAMO_PROTECTED_MODE", "no")
	t.Setenv("REDYNAMO_ACLFILE", "/e")
	if s := mustParse(t, "", "server", "--data-dir", "d").Server; s.ProtectedMode || s.ACLFile != "/e" {
		t.Errorf("of the environment: protected %v, aclfile %q", s.ProtectedMode, s.ACLFile)
	}
}

func TestListsAndSwitchesOfTheEnvironment(t *testing.T) {
	t.Setenv("REDYNAMO_JOIN", "n1:7946,n2:7946")
	t.Setenv("REDYNAMO_AUTO_JOIN", "false")
	t.Setenv("REDYNAMO_DATA_DIR", "/d")
	t.Setenv("REDYNAMO_VERSION", "0.1.0") // what images tend to set
	s := mustParse(t, "auto-join = true\n", "server").Server
	if want := []string{"n1:7946", "n2:7946"}; !slices.Equal(s.Join, want) || s.AutoJoin || s.DataDir != "/d" {
		t.Errorf("join %q, auto-join %v, data-dir %q", s.Join, s.AutoJoin, s.DataDir)
	}
}

func TestVersionAndHelpAnswerWithoutRunning(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--version", version}, {"--help", "Usage: redynamo"}, {"server --help", "--data-dir"},
	} {
		var out, errs bytes.Buffer
		if err := run(t.Context(), strings.Fields(c.args), &out, &errs); err != nil || errs.Len() > 0 {
			t.Errorf("%s: %v, said %q", c.args, err, errs.String())
		}
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("%s answers %q, want %q in it", c.args, out.String(), c.want)
		}
	}
}
