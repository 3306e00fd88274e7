package resp

// failed is the pending of a command that was refused while it was parsed.
func failed(msg string) pending { return refusal(msg) }

type refusal string

func (r refusal) finish(w *Reply) { w.Error(string(r)) }

// failedWith is failed in the words of the error table.
func failedWith(err error) pending { return refusal(errorText(err)) }
