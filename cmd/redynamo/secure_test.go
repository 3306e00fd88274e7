package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASecretIsAFileWithSomethingInIt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, c := range []struct{ file, secret, fault string }{
		{"", "", ""},
		{write("good", "  a secret of some length\n\n"), "a secret of some length", ""},
		{write("empty", " \n"), "", "is empty"},
		{write("long", strings.Repeat("x", maxSecretFile+1)), "", "longer than 4096 bytes"},
		{filepath.Join(dir, "none"), "", "no such file"},
		{dir, "", "is a directory"},
	} {
		secret, err := readSecret(c.file)
		if string(secret) != c.secret || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%q: %q, %v, want %q, %q", c.file, secret, err, c.secret, c.fault)
		}
	}
}

func TestWhatIsWrongWithTheTLSOfACommandIsSaid(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for fault, c := range map[string]clientTLS{
		"need tls":                           {TLSCA: empty},
		"tls-cert and tls-key need each oth": {TLS: true, TLSCert: empty},
		"no certificate in it":               {TLS: true, TLSCA: empty},
		"no such file":                       {TLS: true, TLSCA: empty + "."},
		"tls-cert: ":                         {TLS: true, TLSCert: empty, TLSKey: empty},
	} {
		if cfg, err := c.config(); err == nil || cfg != nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%+v: %v, %v, want %q", c, cfg, err, fault)
		}
	}
	if cfg, err := (clientTLS{}).config(); cfg != nil || err != nil {
		t.Errorf("without TLS: %v, %v", cfg, err)
	}
	if cfg, err := (clientTLS{TLS: true}).config(); cfg == nil || err != nil {
		t.Errorf("with TLS: %v, %v", cfg, err)
	}
}
