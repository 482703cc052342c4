// SPDX-License-Identifier: MIT
/** The code samples of the documents, as the programs that they make. */
import { join } from 'node:path';
import ts from 'typescript';
import { ROOT, readPage } from './markdown';

/** A block that begins with an import begins a program; those that do not go on with it. */
export interface Program {
  /** Page and line, for messages. */
  readonly name: string;
  readonly code: string;
  /** What it prints, if the page tells: the `text` blocks that directly follow its code. */
  readonly output: string | null;
}

/** @param path of the page, within the repository */
export function programsOf(path: string): Program[] {
  const programs: { name: string; code: string; output: string | null }[] = [];
  let before = '';
  for (const { language, text, line, follows } of readPage(path).fences) {
    let last = programs.at(-1);
    if (language === 'ts') {
      if (last === undefined || text.startsWith('import ')) {
        last = { name: `${path}:${line}`, code: '', output: null };
        programs.push(last);
      }
      last.code += `${text}\n`;
    } else if (language === 'text' && before === 'ts' && follows && last !== undefined) {
      last.output = `${last.output ?? ''}${text}\n`;
    }
    before = language;
  }
  return programs;
}

/** What the compiler says of programs that use the built package by its name, as strict as this repository is. */
export function compile(programs: readonly Program[]): string {
  // Files that are not there, in the folder of the package: from there it finds itself by its name.
  const sources = new Map(
    programs.map(({ name, code }) => [join(ROOT, `${name.replaceAll(/[/:]/g, '-')}.mts`), code]),
  );
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2023,
    lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
    module: ts.ModuleKind.Node20,
    types: ['node'],
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: true,
    noEmit: true,
  };
  const disk = ts.createCompilerHost(options);
  const host: ts.CompilerHost = {
    ...disk,
    fileExists: (file) => sources.has(file) || disk.fileExists(file),
    readFile: (file) => sources.get(file) ?? disk.readFile(file),
    getSourceFile: (file, ...rest) => {
      const code = sources.get(file);
      return code === undefined
        ? disk.getSourceFile(file, ...rest)
        : ts.createSourceFile(file, code, ts.ScriptTarget.ES2023);
    },
    getCurrentDirectory: () => ROOT,
  };
  const program = ts.createProgram([...sources.keys()], options, host);
  return ts.formatDiagnostics(ts.getPreEmitDiagnostics(program), host);
}

/** JavaScript that every supported Node.js takes: without types, and without `using`, which Node.js 24 brought. */
export function toJavaScript({ code }: Program): string {
  return ts.transpileModule(code, {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  }).outputText;
}
