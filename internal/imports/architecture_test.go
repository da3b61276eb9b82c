package imports_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What stands in ARCHITECTURE.md between backquotes is a folder, a name of the
// code (fleet.Fleet.Agents, Timetable, plan.Plan), or none of our business, and
// then it stands here.
var notOurs = map[string]bool{
	"probectl run fra-1 --from dc=nyc": true, "probectl run": true, "probectl get results": true, "make demo": true,
	"dc=fra,!canary": true, "fra-1": true, "tap": true, "trace": true, "quiet": true, "x/sys/unix": true, "SOF_TIMESTAMPING_OPT_ID": true, "SO_TIMESTAMPNS": true, "SO_TIMESTAMPING": true,
	"New": true, "Run(ctx)": true, "engine": true,
}

func TestEveryNameInTheArchitectureExists(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	names := declared(t)
	found := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(text), -1)
	if len(found) < 40 || len(names) < 500 {
		t.Fatalf("%d names in the text, %d in the code: the test looks in the wrong place", len(found), len(names))
	}
	for _, m := range found {
		name := strings.TrimSuffix(m[1], "/*")
		if notOurs[name] || names[name] {
			continue
		}
		if _, err := os.Stat(filepath.Join("../..", name)); err != nil {
			t.Errorf("ARCHITECTURE.md tells of `%s`, which does not exist", name)
		}
	}
}

// declared returns all names that are declared at the top of a file of ours: by
// themselves, with their package, and methods with their type, too.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	add := func(pkg, name string) {
		names[name], names[pkg+"."+name] = true, true
	}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "tools" || d.Name() == ".git") {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					name = receiver(d.Recv.List[0].Type) + "." + name
				}
				add(f.Name.Name, name)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						add(f.Name.Name, s.Name.Name)
						if i, ok := s.Type.(*ast.InterfaceType); ok {
							for _, m := range i.Methods.List {
								for _, n := range m.Names {
									add(f.Name.Name, s.Name.Name+"."+n.Name)
								}
							}
						}
					case *ast.ValueSpec:
						for _, n := range s.Names {
							add(f.Name.Name, n.Name)
						}
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// receiver returns the name of a method's type.
func receiver(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}
