package main

import (
	"strings"
	"testing"
)

func TestBrokenSettingsFileNamesLineAndColumn(t *testing.T) {
	for text, want := range map[string]string{
		"r = 2\nw = \n":    "line 2, column 5: ",
		"[server\n":        "line 1, column ",
		"r = 2\n\nr = 3\n": "line 3, column 1: ",
	} {
		if _, err := loadTOML(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q said", text, err, want)
		}
	}
}
