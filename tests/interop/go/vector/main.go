// Prints NIP-44's official vectors as JSON, out of the test file that go-nostr ships them in.
//
//	vector FILE     {"assertCryptPriv": [["…", "…"], …], …}: the literal arguments of each call, by its name
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
)

func literals(call *ast.CallExpr) []string {
	found := []string{}
	for _, argument := range call.Args[1:] {
		literal, ok := argument.(*ast.BasicLit)
		if !ok {
			return nil
		}
		text := literal.Value
		if literal.Kind == token.STRING {
			var err error
			if text, err = strconv.Unquote(text); err != nil {
				return nil
			}
		}
		found = append(found, text)
	}
	return found
}

func main() {
	file, err := parser.ParseFile(token.NewFileSet(), os.Args[1], nil, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	vectors := map[string][][]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		name, ok := call.Fun.(*ast.Ident)
		if !ok || !strings.HasPrefix(name.Name, "assert") {
			return true
		}
		if found := literals(call); found != nil {
			vectors[name.Name] = append(vectors[name.Name], found)
		}
		return true
	})
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	if err := out.Encode(vectors); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
