package ring

import (
	"encoding/json"
	"testing"
)

func TestNodeIDIsTheSameTextInJSON(t *testing.T) {
	id := NodeID(0x00f1e2d3c4b5a697)
	got, err := json.Marshal(map[string]any{"node": id})
	if want := `{"node":"` + id.String() + `"}`; err != nil || string(got) != want {
		t.Errorf("JSON %s (%v), want %s", got, err, want)
	}
}
