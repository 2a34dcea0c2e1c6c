package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// configFile holds the values of a configuration file as text, in the form that flags have them.
type configFile struct {
	path   string
	values map[string]fileValue // by dotted key: "loops", "routes.submit.subject"
	peers  []fileEntry          // the entries of the list peersKey
}

type fileValue struct {
	text  string
	items []string // of a list; of a single value that value
	line  int
}

// fileEntry is a mapping that is an entry of a list.
type fileEntry struct {
	values map[string]fileValue
	line   int
}

func (f *configFile) take(key string) (fileValue, bool) {
	v, ok := f.values[key]
	return v, ok && key != ""
}

func (f *configFile) source(key string, v fileValue) string {
	return fmt.Sprintf("key %s in %s:%d", key, f.path, v.line)
}

// readConfigFile reads the file at path, which source named. Keys that no setting has are problems,
// as are values of the wrong shape.
func readConfigFile(path, source string, table []setting) (configFile, []string) {
	reader := fileReader{
		file: configFile{path: path, values: map[string]fileValue{}},
		keys: map[string]bool{},
	}
	for i := range table {
		if key := table[i].fileKey(); key != "" {
			reader.addKey(key)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return reader.file, []string{fmt.Sprintf("%s: %v", source, err)}
	}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		// Without the source lines: they may hold a password.
		message := yaml.FormatError(err, false, false)
		return reader.file, []string{fmt.Sprintf("%s: %s is not YAML: %s", source, path, message)}
	}
	for i, document := range tree.Docs {
		switch body := document.Body.(type) {
		case nil:
		case *ast.MappingNode:
			if i > 0 {
				reader.problem(body, "want one document, found another one")
				continue
			}
			reader.readMapping("", body)
		default:
			reader.problem(body, "want keys and values, found a %s", strings.ToLower(body.Type().String()))
		}
	}
	return reader.file, reader.problems
}

// fileReader turns the tree of a YAML file into texts by key.
type fileReader struct {
	file     configFile
	keys     map[string]bool // every known key; true: it holds a value, false: it holds further keys
	problems []string
}

// addKey makes key known, and what stands before its dots as the mappings that hold it.
func (r *fileReader) addKey(key string) {
	r.keys[key] = true
	for i, c := range key {
		if c == '.' {
			r.keys[key[:i]] = false
		}
	}
}

func (r *fileReader) problem(at ast.Node, format string, args ...any) {
	line := at.GetToken().Position.Line
	r.problems = append(r.problems, fmt.Sprintf("%s:%d: ", r.file.path, line)+fmt.Sprintf(format, args...))
}

func (r *fileReader) keyProblem(at ast.Node, key, format string, args ...any) {
	source := r.file.source(key, fileValue{line: at.GetToken().Position.Line})
	r.problems = append(r.problems, source+": "+fmt.Sprintf(format, args...))
}

func (r *fileReader) readMapping(prefix string, mapping *ast.MappingNode) {
	for _, entry := range mapping.Values {
		key := prefix + entry.Key.GetToken().Value
		holdsValue, known := r.keys[key]
		inner, isMapping := entry.Value.(*ast.MappingNode)
		_, isNull := entry.Value.(*ast.NullNode)
		switch {
		case key == peersKey && !isNull:
			r.readPeers(entry.Value)
		case key == peersKey:
			// A key without a value, as below.
		case !known:
			r.keyProblem(entry.Key, key, "there is no such setting")
		case isNull:
			// A key without a value, as templates have them: not set.
		case !holdsValue && isMapping:
			r.readMapping(key+".", inner)
		case !holdsValue:
			r.keyProblem(entry.Key, key, "want keys and values below it")
		default:
			if v, ok := r.readValue(entry, key); ok {
				r.file.values[key] = v
			}
		}
	}
}

// readPeers reads the list of mappings that peersKey holds.
func (r *fileReader) readPeers(list ast.Node) {
	sequence, isList := list.(*ast.SequenceNode)
	if !isList {
		r.keyProblem(list, peersKey, "want a list of rules, each with a uid or a gid")
		return
	}
	for _, node := range sequence.Values {
		mapping, isMapping := node.(*ast.MappingNode)
		if !isMapping {
			r.keyProblem(node, peersKey, "want a rule with a uid or a gid, found a %s", strings.ToLower(node.Type().String()))
			continue
		}
		if len(mapping.Values) == 0 {
			r.keyProblem(node, peersKey, "want a rule with a uid or a gid, found nothing")
			continue
		}
		r.file.peers = append(r.file.peers, r.readEntry(mapping))
	}
}

func (r *fileReader) readEntry(mapping *ast.MappingNode) fileEntry {
	read := fileEntry{values: map[string]fileValue{}, line: mapping.Values[0].Key.GetToken().Position.Line}
	for _, entry := range mapping.Values {
		name := entry.Key.GetToken().Value
		key := peersKey + "." + name
		_, isNull := entry.Value.(*ast.NullNode)
		switch {
		case !isRuleKey(name):
			r.keyProblem(entry.Key, key, "there is no such setting")
		case isNull:
			// A key without a value: not set.
		default:
			if v, ok := r.readValue(entry, key); ok {
				read.values[name] = v
			}
		}
	}
	return read
}

// readValue reads a single value or a list of such.
func (r *fileReader) readValue(entry *ast.MappingValueNode, key string) (v fileValue, ok bool) {
	v.items, ok = valueItems(entry.Value)
	if !ok {
		r.keyProblem(entry.Key, key, "want a single value, or a list of such where several may be named")
		return v, false
	}
	v.text, v.line = strings.Join(v.items, ","), entry.Key.GetToken().Position.Line
	return v, true
}

// valueItems returns a value, or those of a list, as they were written, so that 0660 stays octal and 30s
// a duration.
func valueItems(node ast.Node) (items []string, ok bool) {
	sequence, isList := node.(*ast.SequenceNode)
	if !isList {
		text, ok := scalarText(node)
		return []string{text}, ok
	}
	items = make([]string, len(sequence.Values))
	for i, entry := range sequence.Values {
		if items[i], ok = scalarText(entry); !ok {
			return nil, false
		}
	}
	return items, true
}

func scalarText(node ast.Node) (text string, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}
