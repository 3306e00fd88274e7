package resp

func clusterCommands() []command { return nil }
