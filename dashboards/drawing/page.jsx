// Draws a dashboard with Grafana's own components from what a Prometheus says now.
// The page has `dashboard` (the JSON), `prometheus` (its address) and `variables` as globals.

// By require, so that all of it is CommonJS: half and half, some components come as their modules.
const React = require('react');
const { createRoot } = require('react-dom/client');
const { of } = require('rxjs');
const {
  FieldColorModeId,
  FieldType,
  ThemeContext,
  createDataFrame,
  createTheme,
  dateTime,
  getDisplayProcessor,
  standardTransformers,
} = require('@grafana/data');
const { BarGauge, BigValue, Table, TimeSeries } = require('@grafana/ui');

const STEP_S = 2;
const COLUMN_PX = 56;
const ROW_PX = 38;
const HEAD_PX = 34;
const theme = createTheme({ colors: { mode: 'light' } });

const filled = (text) =>
  Object.entries(variables).reduce((made, [name, value]) => made.replaceAll(`$${name}`, value), text);

async function ask(path, parameters) {
  const answer = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const told = await answer.json();
  if (told.status !== 'success') {
    throw new Error(`${parameters.query}: ${told.error}`);
  }
  return told.data.result;
}

const named = (legend, metric) =>
  legend.replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? '') || JSON.stringify(metric);

// Grafana gives the colours of its palette in the order of the series.
function colour(panel, index) {
  const { color } = panel.fieldConfig.defaults;
  const { palette } = theme.visualization;
  return color.mode === FieldColorModeId.PaletteClassic
    ? { mode: FieldColorModeId.Fixed, fixedColor: palette[index % palette.length] }
    : color;
}

function field(panel, name, values, labels, index) {
  const made = {
    name,
    type: FieldType.number,
    values,
    labels,
    config: { ...panel.fieldConfig.defaults, displayName: name, color: colour(panel, index) },
  };
  made.display = getDisplayProcessor({ field: made, theme, timeZone: 'utc' });
  return made;
}

// One frame for each series, as Grafana's data source makes them.
async function framesOf(panel, range) {
  const frames = [];
  for (const target of panel.targets) {
    const query = filled(target.expr);
    const result = target.instant
      ? await ask('query', { query, time: range.to })
      : await ask('query_range', { query, start: range.from, end: range.to, step: STEP_S });
    for (const series of result) {
      const points = series.values ?? [series.value];
      const time = { name: 'Time', type: FieldType.time, values: [], config: {} };
      const values = [];
      // A gap stays one.
      let before = null;
      for (const [at, value] of points) {
        if (before !== null && at - before > 2 * STEP_S) {
          time.values.push((before + STEP_S) * 1000);
          values.push(null);
        }
        time.values.push(at * 1000);
        values.push(Number(value));
        before = at;
      }
      const name = named(target.legendFormat, series.metric);
      const number = field(panel, name, values, series.metric, frames.length);
      frames.push(createDataFrame({ name, refId: target.refId, fields: [time, number] }));
    }
  }
  return frames;
}

const lastOf = (frame) => frame.fields[1].values.findLast((value) => value !== null);

function Lines({ panel, frames, range, width, height }) {
  return (
    <TimeSeries
      frames={frames}
      timeRange={range.grafana}
      timeZone="utc"
      width={width}
      height={height}
      legend={{ ...panel.options.legend, displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] }}
    />
  );
}

function Stats({ panel, frames, width, height }) {
  const each = width / frames.length;
  return (
    <div style={{ display: 'flex' }}>
      {frames.map((frame) => {
        const value = frame.fields[1].display(lastOf(frame));
        return (
          <BigValue
            key={frame.name}
            value={{ ...value, title: frame.name }}
            width={each}
            height={height}
            theme={theme}
            colorMode={panel.options.colorMode}
            graphMode={panel.options.graphMode}
            textMode={panel.options.textMode}
          />
        );
      })}
    </div>
  );
}

function Bars({ panel, frames, width, height }) {
  const most = Math.max(...frames.map(lastOf), 0);
  return frames.map((frame) => (
    <BarGauge
      key={frame.name}
      value={{ ...frame.fields[1].display(lastOf(frame)), title: frame.name }}
      field={{ min: 0, max: most, ...frame.fields[1].config }}
      display={frame.fields[1].display}
      orientation={panel.options.orientation}
      displayMode={panel.options.displayMode}
      theme={theme}
      width={width}
      height={Math.min(height / frames.length, 2 * ROW_PX)}
      itemSpacing={4}
    />
  ));
}

// Grafana asks for a table with a column for each label; then the panel's own transformation.
function matrixOf(panel, frames) {
  const labels = Object.keys(frames[0].fields[1].labels).filter((name) => name !== '__name__');
  const rows = createDataFrame({
    fields: [
      ...labels.map((name) => ({
        name,
        type: FieldType.string,
        values: frames.map((frame) => frame.fields[1].labels[name]),
        config: {},
      })),
      { name: 'Value', type: FieldType.number, values: frames.map(lastOf), config: {} },
    ],
  });
  const [{ options }] = panel.transformations;
  const { groupingToMatrixTransformer: transformer } = standardTransformers;
  let made = null;
  of([rows])
    .pipe(transformer.operator(options, { interpolate: (text) => text }))
    .subscribe((value) => (made = value[0]));
  const numbers = made.fields.slice(1).flatMap((each) => each.values.filter((value) => value));
  for (const each of made.fields) {
    each.config =
      each === made.fields[0]
        ? { custom: {} }
        : { ...panel.fieldConfig.defaults, min: 0, max: Math.max(...numbers, 1) };
    each.display = getDisplayProcessor({ field: each, theme, timeZone: 'utc' });
  }
  return made;
}

const DRAWN = { timeseries: Lines, heatmap: Lines, stat: Stats, bargauge: Bars };

function Panel({ panel, drawn }) {
  const { x, y, w, h } = panel.gridPos;
  const place = {
    position: 'absolute',
    left: x * COLUMN_PX,
    top: y * ROW_PX,
    width: w * COLUMN_PX - 8,
    height: h * ROW_PX - 8,
  };
  const note = panel.type === 'heatmap' ? ' (drawn as lines: npm has no heatmap)' : '';
  return (
    <div style={{ ...place, border: '1px solid #ccd', overflow: 'hidden', background: 'white' }}>
      <div style={{ height: HEAD_PX - 6, padding: '4px 8px', fontWeight: 500 }}>{panel.title + note}</div>
      {drawn ?? <div style={{ textAlign: 'center', color: '#777', paddingTop: 24 }}>No data</div>}
    </div>
  );
}

async function drawnOf(panel, range) {
  const width = panel.gridPos.w * COLUMN_PX - 24;
  const height = panel.gridPos.h * ROW_PX - HEAD_PX - 16;
  const frames = await framesOf(panel, range);
  if (!frames.length) {
    return null;
  }
  if (panel.type === 'table') {
    return <Table data={matrixOf(panel, frames)} width={width} height={height} />;
  }
  const Drawn = DRAWN[panel.type];
  return <Drawn panel={panel} frames={frames} range={range} width={width} height={height} />;
}

const told = { drawn: [], empty: [], failed: [] };

// What fails while it is drawn, and not before.
class Guard extends React.Component {
  state = { failed: false };

  static getDerivedStateFromError = () => ({ failed: true });

  componentDidCatch(error) {
    told.failed.push(`${this.props.title}: ${error.stack}`);
  }

  render() {
    return this.state.failed ? <div>Failed</div> : this.props.children;
  }
}

async function main() {
  const to = Math.floor(Date.now() / 1000);
  const from = to - seconds;
  const times = { from: dateTime(from * 1000), to: dateTime(to * 1000) };
  const range = { from, to, grafana: { ...times, raw: times } };
  const made = [];
  for (const panel of dashboard.panels) {
    if (panel.type === 'row') {
      const place = { position: 'absolute', top: panel.gridPos.y * ROW_PX + 8, margin: 0 };
      made.push(<h3 key={panel.id} style={place}>{panel.title}</h3>);
      continue;
    }
    let drawn = null;
    try {
      drawn = await drawnOf(panel, range);
      (drawn ? told.drawn : told.empty).push(panel.title);
    } catch (error) {
      told.failed.push(`${panel.title}: ${error.stack}`);
    }
    made.push(<Panel key={panel.id} panel={panel} drawn={drawn && <Guard title={panel.title}>{drawn}</Guard>} />);
  }
  const root = createRoot(document.getElementById('page'));
  root.render(<ThemeContext.Provider value={theme}>{made}</ThemeContext.Provider>);
  setTimeout(() => {
    document.getElementById('told').textContent = JSON.stringify(told);
    document.title = 'drawn';
  }, 1000);
}

main();
