-- Requests from a file (a line each: an access token, a refresh token or a login), and the figures as JSON.
-- wrk.lua ROUTE FILE; a new refresh token in an answer goes to the end of the queue.
local queue, first, body, headers = {}, 1, nil, {}

function init(args)
  route = args[1]
  for line in io.lines(args[2]) do queue[#queue + 1] = line end
  if route ~= "refresh" then response = nil end
end

function request()
  local item = queue[first] or ""
  if route == "refresh" then
    first = first + 1
    return wrk.format("POST", "/v1/auth/refresh", {["Content-Type"] = "application/json"},
                      '{"refresh_token":"' .. item .. '"}')
  end
  first = first % #queue + 1
  if route == "health" then return wrk.format("GET", "/health/live") end
  if route == "login" then
    return wrk.format("POST", "/v1/auth/login", {["Content-Type"] = "application/json"}, item)
  end
  local path = route == "sessions" and "/v1/auth/sessions?limit=20" or "/v1/auth/me"
  return wrk.format("GET", path, {["Authorization"] = "Bearer " .. item})
end

function response(status, _, text)
  local token = text:match('"refresh_token": ?"([^"]+)"')
  if token then queue[#queue + 1] = token end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50":%.3f,"p99":%.3f,"p999":%.3f,"max":%.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
