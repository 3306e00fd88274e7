package resp

// failed is the pending of a command that was refused while it was parsed.
func failed(msg string) pending { return refusal(msg) }

type refusal string

func (r refusal) finish(w *Reply) { w.Error(string(r)) }

// failedWith is failed in the words of the error table.
func failedWith(err error) pending { return refusal(errorText(err)) }

// answered is the pending of a command whose reply is known already.
func answered(write func(w *Reply)) pending { return answer(write) }

type answer func(w *Reply)

func (a answer) finish(w *Reply) { a(w) }
