package main

import (
	"io"
	"time"

	tea "charm.land/bubbletea/v2"
)

// progress shows a table that changes, on a terminal, until it is stopped.
type progress struct {
	program *tea.Program
	done    chan struct{}
}

func startProgress(w io.Writer, show func() *table) *progress {
	p := &progress{done: make(chan struct{})}
	p.program = tea.NewProgram(&progressModel{show: show}, tea.WithOutput(w), tea.WithInput(nil), tea.WithoutSignalHandler())
	go func() {
		defer close(p.done)
		// A display that fails does not fail the measurement: the results come all the same.
		_, _ = p.program.Run()
	}()
	return p
}

// stop takes the display away; the final table takes its place. A nil progress has nothing to stop.
func (p *progress) stop() {
	if p == nil {
		return
	}
	p.program.Send(finished{})
	<-p.done
}

type (
	tick     time.Time
	finished struct{}
)

// progressModel is the display as bubbletea wants it.
type progressModel struct {
	show func() *table
	over bool
}

// Init implements tea.Model.
func (m *progressModel) Init() tea.Cmd { return again() }

// Update implements tea.Model.
func (m *progressModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg.(type) {
	case tick:
		return m, again()
	case finished:
		m.over = true
		return m, tea.Quit
	}
	return m, nil
}

// View implements tea.Model.
func (m *progressModel) View() tea.View {
	if m.over {
		return tea.NewView("")
	}
	return tea.NewView(m.show().String())
}

func again() tea.Cmd {
	return tea.Tick(200*time.Millisecond, func(t time.Time) tea.Msg { return tick(t) })
}
