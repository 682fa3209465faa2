// What web/ uses of ComfyUI's editor. The package of types that its makers publish is not made for
// every release, and refers to files that it lacks, so that most of it would be `any`.

declare namespace Editor {
  type Size = [width: number, height: number];

  interface Widget {
    name: string;
    type: string;
    value: unknown;
    element?: HTMLElement;
    /** The editor's own copy of the value. */
    _state?: { value: unknown };
    options?: { advanced?: boolean; /** Of a choice. */ values?: unknown[] };
    advanced?: boolean;
    hidden?: boolean;
    /** Whether the value is saved with the workflow; the option of this name is for prompts. */
    serialize?: boolean;
    callback?(value: unknown, ...more: unknown[]): void;
    /** The value for a prompt and for the workflow that is kept with it. */
    serializeValue?(): unknown;
    onRemove?(): void;
  }

  interface DomWidgetOptions {
    serialize?: boolean;
    getValue?(): unknown;
    setValue?(value: unknown): void;
    /** In CSS pixels at zoom 1. */
    getMinHeight?(): number;
    getMaxHeight?(): number | undefined;
    /** Whether the canvas leaves it out where text is too small to read; true unless given. */
    hideOnZoom?: boolean;
  }

  /** A file as `/view` names it. */
  type SavedFile = { filename: string; subfolder: string; type: string };

  /** A value that Preview Outputs shows. */
  interface PreviewedValue {
    label: string;
    kind: string;
    title: string;
    figures: [label: string, figure: string][];
    text: string;
    media: "" | "image" | "audio" | "video";
    files: SavedFile[];
    /** The lowest and the highest sample in each stretch of time, for each audio file. */
    waveforms: [low: number, high: number][][];
    problem: string;
  }

  /** The lists that our nodes return as `ui`. */
  type NodeResult = {
    text?: string[];
    thinking?: string[];
    report?: string[];
    values?: PreviewedValue[];
  } | null;

  interface Input {
    name?: string;
    link?: number | null;
    /** Where the value of a promoted widget is kept. */
    widgetId?: string;
    /** The promoted widget. */
    _widget?: Widget;
  }

  interface Node {
    _extraWidgets?: Widget[];
    id: number | string;
    comfyClass: string;
    size: Size;
    graph: Graph | null;
    inputs?: Input[];
    /** Saved with the node. */
    properties: Record<string, unknown>;
    widgets?: Widget[];
    showAdvanced?: boolean;
    /** The graph inside, of a node that stands for one. */
    subgraph?: Graph;
    addDOMWidget(name: string, type: string, element: HTMLElement, options: DomWidgetOptions): Widget;
    addCustomWidget(widget: Widget): Widget;
    /** The smallest size with all that is in the node. */
    computeSize(): Size;
    configure(saved: { size?: Size }): void;
    setSize(size: Size): void;
    setDirtyCanvas(foreground: boolean, background?: boolean): void;
    toggleAdvanced(): void;
    /** Whether the Vue renderer leaves out the images of the node's result. */
    hideOutputImages?: boolean;
    onAdded?: unknown;
    onConnectionsChange?(...change: unknown[]): void;
    onConfigure?(saved: unknown): void;
    /** On the canvas; the editor's own shows the images of the node's result. */
    onDrawBackground?(): void;
    onRemoved?: unknown;
    onResize?: unknown;
    onExecuted?(result: NodeResult): void;
  }

  interface SubgraphEvents {
    addEventListener(
      type: "widget-promoted",
      listener: (event: CustomEvent<{ subgraphNode: Node }>) => void,
    ): void;
  }

  interface Graph {
    /** Of subgraphs only. */
    events?: SubgraphEvents;
    /** By id; of the workflow's own graph. */
    subgraphs?: Map<string, Graph>;
    nodes: Node[];
    getNodeById(id: string): Node | undefined;
  }

  interface Canvas {
    /** The one that is open: the workflow's own, or a subgraph. */
    graph: Graph | null;
    emitBeforeChange(): void;
    emitAfterChange(): void;
    processMouseWheel(event: WheelEvent): void;
  }

  interface SavedNode {
    type?: string;
  }

  interface SavedGraph {
    id?: string;
    nodes?: SavedNode[];
    links?: unknown;
    inputs?: unknown;
    last_link_id?: number;
    state?: unknown;
  }

  interface Workflow extends SavedGraph {
    definitions?: { subgraphs?: SavedGraph[] };
  }

  interface Setting {
    id: string;
    category: string[];
    name: string;
    tooltip: string;
    type: "boolean" | "combo" | "number";
    /** Of a combo. */
    options?: (string | { text: string; value: string })[];
    defaultValue: boolean | number | string;
  }

  interface Extension {
    name: string;
    settings?: Setting[];
    setup?(): void;
    nodeCreated?(node: Node): void;
    getCustomWidgets?(): Record<
      string,
      (node: Node, inputName: string) => { widget: Widget; minWidth: number; minHeight: number }
    >;
    /** On the editor's command that refreshes the lists of files. */
    refreshComboInNodes?(): Promise<void>;
    beforeConfigureGraph?(workflow: Workflow): Promise<void>;
    afterConfigureGraph?(): Promise<void>;
    /** With all results that are kept for the workflow: when it is opened, and when one changes. */
    onNodeOutputsUpdated?(outputs: Record<string, NodeResult>): void;
  }

  interface Toast {
    severity: "info" | "warn" | "error";
    summary: string;
    detail: string;
    /** In ms; without it, until the user closes it. */
    life?: number;
  }

  interface App {
    graph: Graph;
    rootGraph: Graph;
    canvas: Canvas;
    extensionManager: {
      command: { execute(id: string): Promise<void> };
      setting: { get(id: string): unknown };
      toast: { add(toast: Toast): void };
    };
    registerExtension(extension: Extension): void;
  }

  interface TextEvent {
    node: string;
    answer: string;
    thinking: string;
  }

  interface Api {
    addEventListener(type: "vivace.text", listener: (event: CustomEvent<TextEvent>) => void): void;
    apiURL(route: string): string;
    fetchApi(route: string, options?: RequestInit): Promise<Response>;
  }
}

declare module "*/scripts/app.js" {
  export const app: Editor.App;
}

declare module "*/scripts/api.js" {
  export const api: Editor.Api;
}

declare const LiteGraph: { registered_node_types: Record<string, unknown> };

interface Window {
  /** The editor's modules, for extensions. */
  comfyAPI?: { utils?: { applyTextReplacements?(graph: Editor.Graph, text: string): string } };
}
