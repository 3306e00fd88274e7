package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/pelletier/go-toml/v2"
)

// tomlFile answers kong's questions about flags from a TOML document whose
// keys are the flags' names. A table named after a command (such as [server])
// holds for that command alone and beats the top level.
type tomlFile map[string]any

// loadTOML reads a settings file. Its errors name line and column.
func loadTOML(r io.Reader) (kong.Resolver, error) {
	f := tomlFile{}
	err := toml.NewDecoder(r).Decode(&f)
	var broken *toml.DecodeError
	if errors.As(err, &broken) {
		line, column := broken.Position()
		return nil, fmt.Errorf("settings file: line %d, column %d: %w", line, column, err)
	}
	if err != nil {
		return nil, fmt.Errorf("settings file: %w", err)
	}
	return f, nil
}

// Validate refuses keys that no flag has: a mistyped setting must not be
// silently without effect.
func (f tomlFile) Validate(app *kong.Application) error {
	known := settingNames(app.Node)
	commands := map[string]map[string]bool{}
	for _, n := range app.Children {
		commands[n.Name] = settingNames(n)
		for name := range commands[n.Name] {
			known[name] = true
		}
	}
	var bad []string
	for key, v := range f {
		table, isTable := v.(map[string]any)
		flags, isCommand := commands[key]
		switch {
		case isTable && isCommand:
			for sub := range table {
				if !flags[sub] {
					bad = append(bad, key+"."+sub)
				}
			}
		case isTable || !known[key]:
			bad = append(bad, key)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	sort.Strings(bad)
	return fmt.Errorf("settings file: unknown keys: %s", strings.Join(bad, ", "))
}

// settingNames are the flags of n that a file may set: not those that ask for
// an answer, nor the one that names the file.
func settingNames(n *kong.Node) map[string]bool {
	names := map[string]bool{}
	for _, flag := range n.Flags {
		names[flag.Name] = flag.Name != "help" && flag.Name != "version" && flag.Name != "config"
	}
	return names
}

// Resolve looks a flag up; nil means the file does not set it, or that the
// environment does: kong asks after it has read the environment, and lets the
// answer win.
func (f tomlFile) Resolve(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	if cmd := parent.Node(); cmd != nil {
		if table, ok := f[cmd.Name].(map[string]any); ok {
			if v, ok := table[flag.Name]; ok {
				return plain(v), nil
			}
		}
	}
	v, ok := f[flag.Name]
	if !ok {
		return nil, nil
	}
	return plain(v), nil
}

// plain turns a TOML value into what kong's mappers take: a list becomes the
// comma-separated text that the flag would have.
func plain(v any) any {
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprint(v)
	}
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = fmt.Sprint(w)
	}
	return strings.Join(words, ",")
}
